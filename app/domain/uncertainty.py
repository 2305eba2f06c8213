"""How much an answer depends on which way round the picture was taken.

Test-time augmentation (Ayhan and Berens, "Test-time Data Augmentation for Estimation of
Heteroscedastic Aleatoric Uncertainty in Deep Neural Networks", MIDL 2018) with the square's eight
symmetries: a dermatoscope has no upright, so all of them show the same lesion.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.domain.images import RgbImage

NUM_VIEWS: Final = 8


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How far a model's answers to the views of one picture lie apart.

    Attributes:
        standard_deviation: (7,) float32, of each class's probability over the views.
        same_class: Share of views whose most probable class is that of the picture as it is.
    """

    standard_deviation: npt.NDArray[np.float32]
    same_class: float


def symmetries(images: RgbImage) -> Iterator[RgbImage]:
    """The eight views of square pictures, the pictures themselves first.

    Args:
        images: (..., side, side, 3) uint8.

    Yields:
        Arrays of the same shape: quarter turns, and quarter turns of the mirror image.
    """
    for mirrored in (images, images[..., ::-1, :]):
        for turns in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, turns, axes=(-3, -2)))


def measure_uncertainty(probabilities: npt.NDArray[np.float32]) -> Uncertainty:
    """Compare the answers to the views of one picture.

    Args:
        probabilities: (8, 7) float32, the picture as it is first.
    """
    classes = probabilities.argmax(axis=1)
    return Uncertainty(
        np.asarray(probabilities.std(axis=0), np.float32), float((classes == classes[0]).mean())
    )
