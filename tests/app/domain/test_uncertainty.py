"""Eight different views, and the spread of the answers to them."""

import numpy as np
import pytest

from app.domain.uncertainty import NUM_VIEWS, measure_uncertainty, symmetries


def test_the_views_are_the_squares_symmetries() -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 6, 3), np.uint8)
    views = list(symmetries(image))
    assert len({view.tobytes() for view in views}) == len(views) == NUM_VIEWS
    np.testing.assert_array_equal(views[0], image)
    np.testing.assert_array_equal(views[2], image[::-1, ::-1])
    np.testing.assert_array_equal(views[4], image[:, ::-1])
    for view in views:
        assert sorted(map(tuple, view.reshape(-1, 3))) == sorted(map(tuple, image.reshape(-1, 3)))


def test_many_pictures_turn_as_each_alone() -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 4, 4, 3), np.uint8)
    for together, *alone in zip(symmetries(images), *map(symmetries, images), strict=True):
        np.testing.assert_array_equal(together, np.stack(alone))


def test_the_spread_of_answers() -> None:
    probabilities = np.zeros((NUM_VIEWS, 7), np.float32)
    probabilities[:6, 4], probabilities[6:, 4] = 0.8, 0.4
    probabilities[:6, 5], probabilities[6:, 5] = 0.2, 0.6
    found = measure_uncertainty(probabilities)
    assert found.same_class == 0.75
    expected = 0.4 * np.sqrt(0.75 * 0.25)
    assert found.standard_deviation[4] == pytest.approx(expected)
    assert found.standard_deviation[5] == pytest.approx(expected)
    assert found.standard_deviation[0] == 0.0
