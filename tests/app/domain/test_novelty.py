"""The score is the distance from the training images' space; a damaged file is refused."""

from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import ManifestError
from app.domain.novelty import FeatureSpace, read_feature_space, write_feature_space

PLANE = FeatureSpace(
    np.array([1.0, 1.0, 1.0], np.float32), np.array([[1, 0, 0], [0, 1, 0]], np.float32)
)


def test_the_score_is_the_length_outside_of_the_space() -> None:
    features = np.array([[1, 1, 1], [9, -5, 1], [1, 1, 3], [7, 7, -3]], np.float32)
    np.testing.assert_allclose(PLANE.residual(features), [0, 0, 2, 4], atol=1e-6)


def test_a_space_comes_back_as_it_was_written(tmp_path: Path) -> None:
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in paths:
        write_feature_space(PLANE, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found = read_feature_space(paths[0], 2)
    np.testing.assert_array_equal(found.components, PLANE.components)
    np.testing.assert_array_equal(found.mean, PLANE.mean)


def test_another_number_of_components_is_refused(tmp_path: Path) -> None:
    write_feature_space(PLANE, tmp_path / "space.npz")
    with pytest.raises(ManifestError, match="not of one space of 3 components"):
        read_feature_space(tmp_path / "space.npz", 3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "space.npz"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="cannot be read as a feature space"):
        read_feature_space(path, 2)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.npz"
    np.savez(path, mean=np.array([{}], object), components=np.zeros((1, 1)))
    with pytest.raises(ManifestError, match="allow_pickle"):
        read_feature_space(path, 1)
