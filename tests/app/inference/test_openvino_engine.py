"""OpenVINO gives TensorFlow's answers and maps, from the same artifacts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import ArtifactError
from app.inference.registry import load_registry
from app.inference.runtimes import engine_maker
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY

pytest.importorskip("openvino")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)


def assert_same_answers(directory: Path) -> None:
    expected = engine_maker("tensorflow")(directory).predict(IMAGES)
    engine = engine_maker("openvino", 1)(directory)
    for batch in (IMAGES, IMAGES[:1]):
        outputs = engine.predict(batch)
        assert set(outputs) == set(expected)
        for name, values in outputs.items():
            assert values.dtype == np.float32
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(
                values, expected[name][: len(batch)], atol=1e-4 * scale, err_msg=name
            )


@pytest.mark.parametrize("name", [PLAIN_MODEL, ATTENTION_MODEL])
def test_small_models_answer_the_same(tiny_models: Path, name: str) -> None:
    assert_same_answers(tiny_models / name / "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "directory", sorted((REPOSITORY / "models").glob("*/*/")), ids=lambda path: path.parent.name
)
def test_shipped_models_answer_the_same(directory: Path) -> None:
    assert_same_answers(directory)


def test_answers_stay_as_they_are_when_the_next_one_comes(tiny_models: Path) -> None:
    engine = engine_maker("openvino")(tiny_models / PLAIN_MODEL / "1")
    first = engine.predict(IMAGES[:1])["probabilities"]
    kept = first.copy()
    engine.predict(IMAGES[1:2])
    np.testing.assert_array_equal(first, kept)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="OpenVINO cannot load it"):
        engine_maker("openvino")(tmp_path)


def test_the_service_on_openvino_does_not_load_tensorflow(tiny_models: Path) -> None:
    script = (
        "import sys; from app.main import create_app; from app.settings import Settings; "
        "from fastapi.testclient import TestClient\n"
        "with TestClient(create_app(Settings())) as client:\n"
        "    assert client.get('/health/ready').status_code == 200\n"
        "assert 'openvino' in sys.modules\n"
        "assert not {'tensorflow', 'openvino_telemetry'} & set(sys.modules)"
    )
    environment = {**os.environ, "RUNTIME": "openvino", "MODELS_DIR": str(tiny_models)}
    subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=REPOSITORY, check=True, timeout=120
    )


def test_golden_examples_hold_in_both_runtimes(tiny_models: Path) -> None:
    registry = load_registry(tiny_models, None, engine_maker("openvino"))
    assert len(registry.all()) == 3
