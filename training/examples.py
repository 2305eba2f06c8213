"""Draw the pictures that the clinician's page offers to newcomers: `python -m training.examples`.

Like golden inputs they are of no patient. They are no lesions either: a model that can tell
rejects them.
"""

from pathlib import Path
from typing import Final

from PIL import Image

from app.domain.images import RgbImage
from app.domain.labels import CLASS_INDEX
from training.synthetic import draw_lesion

FOLDER: Final = Path("app/viewer/examples")
DRAWN: Final = {"nv": 11, "mel": 21, "vasc": 3}
"""Class to resemble, and seed of the drawing."""


def draw_example(label: str) -> RgbImage:
    """The picture for a class of `DRAWN`: (240, 320, 3) uint8 sRGB."""
    return draw_lesion(DRAWN[label], CLASS_INDEX[label], 320, 240)


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for label in DRAWN:
        Image.fromarray(draw_example(label)).save(
            FOLDER / f"drawn-{label}.jpg", quality=45, optimize=True, progressive=True
        )


if __name__ == "__main__":
    main()
