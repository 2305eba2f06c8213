"""Pictures that look a little like dermatoscopy, for golden examples and tests.

They hold no patient data, and no figure of any model is measured on them.
"""

from typing import Final

import cv2
import numpy as np

from app.domain.images import RgbImage
from app.domain.labels import NUM_CLASSES

_SKIN: Final = (226, 178, 156)
_LESION_COLOURS: Final = (
    (176, 120, 108),
    (198, 140, 132),
    (150, 110, 78),
    (168, 112, 92),
    (64, 42, 40),
    (112, 70, 52),
    (158, 44, 62),
)


def draw_lesion(seed: int, class_index: int, width: int = 600, height: int = 450) -> RgbImage:
    """Draw a blob on skin; colour and raggedness depend on the class.

    Args:
        seed: Of shape, place and noise.
        class_index: 0 to 6.
        width: In pixels.
        height: In pixels.

    Returns:
        (height, width, 3) uint8 sRGB.
    """
    if not 0 <= class_index < NUM_CLASSES:
        raise ValueError(f"class_index must be 0 to {NUM_CLASSES - 1}, received {class_index}.")
    random = np.random.default_rng([seed, class_index])
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ragged = 0.04 + 0.04 * class_index
    radius = min(width, height) * random.uniform(0.2, 0.32)
    waves = np.zeros_like(angles)
    for k in range(1, 7):
        waves += random.normal(0, ragged / k) * np.cos(k * angles + random.uniform(0, 6.28))
    outline = radius * (1 + waves)
    centre = np.array([width, height]) * random.uniform(0.42, 0.58, 2)
    points = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * outline[:, None]

    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    soft = cv2.GaussianBlur(mask, (0, 0), 5).astype(np.float32)[..., None] / 255.0
    coarse = random.normal(0, 14, (height // 8, width // 8)).astype(np.float32)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    lesion = np.array(_LESION_COLOURS[class_index], np.float32) + 2 * texture
    skin = np.array(_SKIN, np.float32) + texture
    grain = random.normal(0, 3, (height, width, 3))
    return np.clip(skin * (1 - soft) + lesion * soft + grain, 0, 255).astype(np.uint8)
