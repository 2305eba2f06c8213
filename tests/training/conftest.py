"""Fixtures that several tests of training share."""

from pathlib import Path

import pytest

from training import efficientnet_lite
from training.config import Protocol
from training.prepare import PreparedData, prepare


@pytest.fixture(scope="session")
def data(
    synthetic_dataset: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> PreparedData:
    """The synthetic dataset, prepared without a lesion in two parts. Do not change it."""
    root, metadata = synthetic_dataset
    output = tmp_path_factory.mktemp("prepared") / "data"
    return prepare([root], metadata, output, Protocol.LESION, 1, lambda *_: None)


@pytest.fixture
def short_lite(monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientNet-Lite0 of its stem, the first three of its blocks and its top.

    Enough to test what goes on around a network; TensorFlow makes the graph in a third of the time.
    """
    monkeypatch.setattr(efficientnet_lite, "_GROUPS", efficientnet_lite._GROUPS[:2])
