"""A flag stands for what it says, and for nothing else."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from app.domain.heatmap_checks import (
    LEAST_IN_LESION,
    MOST_AT_BORDER,
    HeatmapFlag,
    around_lesion,
    check_heatmap,
)
from app.domain.images import RgbImage
from app.domain.lesion import find_lesion


def skin(*, centre: tuple[int, int] = (112, 112), radius: int = 36) -> RgbImage:
    """A picture of skin with a dark disc."""
    picture = np.full((224, 224, 3), (215, 160, 140), np.uint8)
    cv2.circle(picture, centre, radius, (110, 60, 40), -1)
    return picture


def at(row: int, column: int) -> npt.NDArray[np.float32]:
    """A map with a single place."""
    values = np.zeros((7, 7), np.float32)
    values[row, column] = 0.25
    return values


def test_a_map_on_the_lesion_has_no_flag() -> None:
    check = check_heatmap(at(3, 3), skin())
    assert check.share_at_border == 0.0
    assert check.share_in_lesion == pytest.approx(1.0, abs=0.05)
    assert check.flags == ()


def test_no_more_than_all_of_a_map_is_on_the_lesion() -> None:
    image = skin(radius=110)
    lesion = find_lesion(image)
    shares = []
    for seed in range(50):  # sums of small places beside large ones depend on their order
        values = np.zeros((7, 7), np.float32)
        values[2:5, 2:5] = 10.0 ** -np.random.default_rng(seed).uniform(0, 6, (3, 3))
        shares.append(check_heatmap(values, image, lesion).share_in_lesion or 0.0)
    assert min(shares) == pytest.approx(1.0)
    assert max(shares) <= 1.0


def test_a_map_beside_the_lesion_is_off_it() -> None:
    check = check_heatmap(at(5, 5), skin(centre=(60, 60), radius=20))
    assert check.share_in_lesion == 0.0
    assert check.flags == (HeatmapFlag.OFF_LESION,)


@pytest.mark.parametrize("place", [(0, 3), (6, 3), (3, 0), (3, 6), (0, 0)])
def test_a_map_at_the_border_is_dominated_by_it(place: tuple[int, int]) -> None:
    everywhere = skin(radius=180)  # no place is off this lesion
    check = check_heatmap(at(*place), everywhere)
    assert check.share_at_border == 1.0
    assert HeatmapFlag.BORDER_DOMINATED in check.flags


@pytest.mark.parametrize("excess", [-0.01, 0.01])
def test_flags_begin_at_their_bounds(excess: float) -> None:
    inside, outside = at(3, 3) * 4, at(0, 3) * 4
    share = MOST_AT_BORDER + excess
    mixed = share * outside + (1 - share) * inside
    check = check_heatmap(mixed.astype(np.float32), skin())
    assert check.share_at_border == pytest.approx(share)
    assert (HeatmapFlag.BORDER_DOMINATED in check.flags) == (excess > 0)

    # The middle place, enlarged, is wholly within this disc and its margin; (5, 0) is far off.
    image = skin(radius=40)
    share = LEAST_IN_LESION - excess
    mixed = share * inside + (1 - share) * 4 * at(5, 0)
    check = check_heatmap(mixed.astype(np.float32), image)
    assert check.share_in_lesion == pytest.approx(share, abs=0.005)
    assert (HeatmapFlag.OFF_LESION in check.flags) == (excess > 0)


def test_a_blank_map_has_no_shares() -> None:
    check = check_heatmap(np.zeros((7, 7), np.float32), skin())
    assert (check.share_at_border, check.share_in_lesion) == (None, None)
    assert check.flags == (HeatmapFlag.BLANK,)


def test_without_a_lesion_nothing_is_off_it() -> None:
    check = check_heatmap(at(5, 5), np.full((224, 224, 3), 180, np.uint8))
    assert check.share_in_lesion is None
    assert check.flags == ()


def test_a_flat_map_holds_no_more_than_the_areas() -> None:
    image = skin()
    check = check_heatmap(np.full((7, 7), 0.01, np.float32), image)
    assert check.share_at_border == pytest.approx(24 / 49)
    assert check.share_in_lesion == pytest.approx(around_lesion(image).mean(), abs=1e-4)


def test_the_margin_around_a_lesion_is_half_a_cell() -> None:
    found = np.flatnonzero(around_lesion(skin(radius=30))[112])
    assert found.min() == pytest.approx(112 - 30 - 16, abs=4)
    assert found.max() == pytest.approx(112 + 30 + 16, abs=4)


@pytest.mark.parametrize("seed", range(3))
def test_a_margin_made_of_rectangles_is_the_ellipse(seed: int) -> None:
    lesion = np.random.default_rng(seed).random((224, 224)) > 0.999
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (33, 33))
    expected = cv2.dilate(lesion.astype(np.uint8), ellipse).astype(np.bool_)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(around_lesion(skin(), lesion), expected)
