"""What counts as the lesion of a picture."""

import cv2
import numpy as np
import pytest

from app.domain.images import RgbImage
from app.domain.lesion import find_lesion


def skin_with(centre: tuple[int, int], radius: int) -> tuple[RgbImage, RgbImage]:
    """A picture of skin with a dark disc, and the disc as a mask."""
    picture = np.full((224, 224, 3), (215, 160, 140), np.uint8)
    mask = np.zeros((224, 224), np.uint8)
    cv2.circle(picture, centre, radius, (110, 60, 40), -1)
    cv2.circle(mask, centre, radius, 1, -1)
    return picture, mask


def overlap(found: np.ndarray, mask: RgbImage) -> float:
    """Jaccard's index."""
    return float((found & (mask > 0)).sum() / (found | (mask > 0)).sum())


@pytest.mark.parametrize(("centre", "radius"), [((112, 112), 40), ((80, 130), 25), ((112, 112), 9)])
def test_a_dark_disc_on_skin_is_found(centre: tuple[int, int], radius: int) -> None:
    picture, mask = skin_with(centre, radius)
    assert overlap(find_lesion(picture), mask) > 0.8


def test_hairs_and_the_dermatoscopes_black_frame_are_no_lesion() -> None:
    picture, mask = skin_with((112, 112), 40)
    for x in range(10, 224, 30):
        cv2.line(picture, (x, 0), (x + 20, 223), (40, 25, 20), 2)
    tube = np.zeros((224, 224), np.uint8)
    cv2.circle(tube, (112, 112), 125, 1, -1)
    picture[tube == 0] = 4
    assert overlap(find_lesion(picture), mask) > 0.7


def test_even_skin_and_a_black_picture_have_no_lesion() -> None:
    skin = np.full((224, 224, 3), (215, 160, 140), np.uint8)
    skin[100:105, 100:105] = 60  # a speck
    assert not find_lesion(skin).any()
    assert not find_lesion(np.zeros((224, 224, 3), np.uint8)).any()
