"""Pictures that no check of their quality complains about."""

import cv2
import numpy as np

from app.domain.images import RgbImage
from training.synthetic import draw_lesion


def sharp_lesion(width: int, height: int) -> RgbImage:
    """A drawn lesion, (height, width, 3), with fine structure as skin has.

    Drawn alone it is smooth, and so counts as blurred.
    """
    noise = np.random.default_rng(7).normal(0, 1, (height, width))
    structure = cv2.GaussianBlur(noise, (0, 0), 0.8)[..., None]
    shown = draw_lesion(7, 4, width, height) + structure * (10 / structure.std())
    return np.clip(shown, 0, 255).astype(np.uint8)
