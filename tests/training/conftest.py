"""Fixtures that several tests of training share."""

from pathlib import Path

import pytest

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
