"""A machine with nothing left is not taken for a bad model."""

import errno
from collections.abc import Callable
from pathlib import Path

import openvino
import pytest
import tensorflow as tf

from app.domain.ensemble import read_ensemble
from app.domain.errors import ArtifactError
from app.domain.golden import golden_input
from app.domain.manifest import read_manifest
from app.domain.novelty import read_feature_space
from app.inference.openvino_engine import OpenVinoEngine
from app.inference.signatures import read_public_keys
from app.inference.tensorflow_engine import TensorFlowEngine
from tests.conftest import PLAIN_MODEL

READERS: dict[str, Callable[[Path], object]] = {
    "manifest": read_manifest,
    "golden": lambda folder: golden_input(folder, read_manifest(folder)[0]),
    "feature space": lambda folder: read_feature_space(folder / "manifest.json", 3),
    "ensemble": lambda folder: read_ensemble(folder / "manifest.json"),
    "keys": lambda folder: read_public_keys(folder / "manifest.json"),
    "OpenVINO": lambda folder: OpenVinoEngine(folder, 1),
    "TensorFlow": TensorFlowEngine,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_only_what_is_wrong_with_a_model_is_said_of_it(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, reader: str, number: int
) -> None:
    folder = tiny_models / PLAIN_MODEL / "2"
    manifest = read_manifest(folder)
    error = OSError(number, "patient Jane Roe")

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(openvino, "Core", fail)
    monkeypatch.setattr(tf.saved_model, "load", fail)
    if reader == "golden":
        monkeypatch.setitem(globals(), "read_manifest", lambda _: manifest)
    with pytest.raises((ArtifactError, OSError)) as caught:
        READERS[reader](folder)
    assert (caught.value is error) is (number == errno.EMFILE)
