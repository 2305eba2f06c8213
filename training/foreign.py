"""Pictures that are no dermatoscopic images, to see which of them a model answers all the same.

They come with scikit-image and scikit-learn (inside the packages; nothing is downloaded) or are
drawn here. A photograph counts as several: the whole, its middle and its quarters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import skimage.data
from sklearn.datasets import load_sample_images

from app.domain.images import MODEL_INPUT_SIZE, RgbImage, to_model_input

SEED: Final = 20180814
_SIDE: Final = MODEL_INPUT_SIZE
_NUM_DRAWN: Final = 20
_NUM_FACES: Final = 40

_PHOTOGRAPHS: Final = {
    "photographs of people": ("astronaut", "camera"),
    "photographs of animals and things": ("chelsea", "coffee", "coins", "rocket", "clock"),
    "textures": ("brick", "grass", "gravel"),
    "astronomy": ("hubble_deep_field", "moon"),
    "pages of text": ("page", "text"),
    "drawings and logos": ("horse", "logo", "colorwheel", "checkerboard", "shepp_logan_phantom"),
    "histology": ("immunohistochemistry",),
    "microscopy": ("cell", "microaneurysms"),
    "eye fundus": ("retina",),
}
"""Functions of `skimage.data`."""


@dataclass(frozen=True, slots=True)
class ForeignImage:
    """A picture that is to be refused.

    Attributes:
        kind: What it belongs to, in the words of the page.
        image: (224, 224, 3) uint8.
    """

    kind: str
    image: RgbImage


def foreign_images() -> list[ForeignImage]:
    """All of them, the same at every call."""
    return [*_photographs(), *_faces(), *_drawn(np.random.default_rng(SEED))]


def _photographs() -> Iterator[ForeignImage]:
    for kind, names in _PHOTOGRAPHS.items():
        for name in names:
            for piece in _pieces(_as_rgb(getattr(skimage.data, name)())):
                yield ForeignImage(kind, piece)
    left, right, _ = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call]
    for picture in (left, right, *load_sample_images().images):
        for piece in _pieces(_as_rgb(picture)):
            yield ForeignImage("photographs of animals and things", piece)


def _faces() -> Iterator[ForeignImage]:
    """Cut-outs of Labeled Faces in the Wild, 25x25 pixels: faces first, other things after."""
    cut_outs = skimage.data.lfw_subset()  # type: ignore[no-untyped-call]
    for half, kind in enumerate(("photographs of people", "photographs of animals and things")):
        for cut_out in cut_outs[half * 100 : half * 100 + _NUM_FACES]:
            yield ForeignImage(kind, to_model_input(_as_rgb(cut_out)))


def _drawn(random: np.random.Generator) -> Iterator[ForeignImage]:
    shape = (_SIDE, _SIDE, 3)
    for _ in range(_NUM_DRAWN):
        yield ForeignImage("noise", random.integers(0, 256, shape, np.uint8))
        smooth = cv2.GaussianBlur(random.normal(0.0, 1.0, shape), (0, 0), random.uniform(2, 30))
        smooth = (smooth - smooth.min()) / np.ptp(smooth) * 255.0
        yield ForeignImage("noise", smooth.astype(np.uint8))
        colour = random.integers(0, 256, 3)
        yield ForeignImage("blank", np.full(shape, colour, np.uint8))
        skin = np.array((220, 170, 150)) + random.integers(-25, 26, 3)
        grain = skin + random.normal(0.0, 3.0, shape)
        yield ForeignImage("skin colour without a lesion", np.clip(grain, 0, 255).astype(np.uint8))
        ramp = np.linspace(0, 1, _SIDE)[:, None, None] * random.integers(60, 256, 3)
        ramp = np.rot90(np.broadcast_to(ramp, shape), k=int(random.integers(0, 4)))
        yield ForeignImage("gradients", np.ascontiguousarray(ramp).astype(np.uint8))
        yield ForeignImage("pages of text", _page(random))


def _page(random: np.random.Generator) -> RgbImage:
    """A page of random letters, black on white."""
    page = np.full((_SIDE * 2, _SIDE * 2, 3), random.integers(225, 256), np.uint8)
    for line in range(24, _SIDE * 2, int(random.integers(18, 34))):
        letters = "".join(random.choice(list("abcdefghijklmnopqrstuvwxyz    "), 60))
        scale = float(random.uniform(0.4, 0.7))
        cv2.putText(page, letters, (12, line), cv2.FONT_HERSHEY_SIMPLEX, scale, (25, 25, 25), 1)
    return to_model_input(page)


def _pieces(picture: RgbImage) -> Iterator[RgbImage]:
    """The whole, the middle half and the four quarters, as a model is given them."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    yield to_model_input(picture)
    for top, left in ((height // 2, width // 2), (0, 0), (0, width), (height, 0), (height, width)):
        piece = picture[top : top + height, left : left + width]
        yield to_model_input(np.ascontiguousarray(piece))


def _as_rgb(picture: np.ndarray) -> RgbImage:
    """uint8 RGB of what scikit-image gives: grey or colour, with alpha, bool or float in [0, 1]."""
    if picture.dtype == np.bool_ or np.issubdtype(picture.dtype, np.floating):
        picture = np.rint(np.clip(picture.astype(np.float64), 0.0, 1.0) * 255.0)
    picture = np.ascontiguousarray(picture.astype(np.uint8))
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(picture[..., :3])
