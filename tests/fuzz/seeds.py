"""Write the corpus that fuzzing begins with: `python -m tests.fuzz.seeds`. All of it is drawn."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless

from tests.dicom_photographs import (
    encapsulated,
    jpeg_photograph,
    lesion,
    make_dataset,
    palette_elements,
    rle_photograph,
    to_bytes,
    to_jpeg2000,
)
from tests.faults.pictures import repeated_strips, run_length_bmp
from tests.fuzz.targets import CORPUS

SIDE = 32
UIDS = {
    f"{name}InstanceUID": f"1.2.826.0.1.3680043.8.498.{number}"
    for number, name in enumerate(("SOP", "Study", "Series"), 1)
}


def pictures() -> Iterator[tuple[str, bytes]]:
    """A file of each kind that is read, and some that are not."""
    rgb = Image.fromarray(lesion(width=SIDE, height=SIDE))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side

    def save(image: Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    yield "baseline.jpg", save(rgb, "JPEG", exif=exif)
    yield "progressive.jpg", save(rgb, "JPEG", progressive=True)
    yield "cmyk.jpg", save(rgb.convert("CMYK"), "JPEG")
    yield "rgb.png", save(rgb, "PNG", exif=exif)
    yield "palette.png", save(rgb.quantize(16), "PNG")
    yield "alpha.png", save(rgb.convert("RGBA"), "PNG")
    deep = Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 257)
    yield "deep.png", save(deep, "PNG")
    yield "lzw.tiff", save(rgb, "TIFF", compression="tiff_lzw")
    yield "jpeg.tiff", save(rgb, "TIFF", compression="jpeg")
    yield "two-pages.tiff", save(rgb, "TIFF", save_all=True, append_images=[rgb])
    yield "repeated-strips.tiff", repeated_strips(SIDE, 8, 500)
    yield "rgb.bmp", save(rgb, "BMP")
    yield "runs.bmp", run_length_bmp(SIDE, 4)
    yield "lossy.webp", save(rgb, "WEBP")
    yield "lossless.webp", save(rgb, "WEBP", lossless=True)
    yield "other.gif", save(rgb, "GIF")
    yield "cut.jpg", save(rgb, "JPEG")[:-100]


def objects() -> Iterator[tuple[str, bytes]]:
    """A DICOM object of each form of pixels that is read, and some that are not."""
    pixels = lesion(width=SIDE, height=SIDE)
    yield "raw.dcm", to_bytes(make_dataset(pixels, **UIDS))
    yield "implicit.dcm", to_bytes(make_dataset(pixels, **UIDS), ImplicitVRLittleEndian)
    yield "jpeg.dcm", jpeg_photograph(pixels, **UIDS)
    yield "rle.dcm", rle_photograph(pixels, **UIDS)
    stream = to_jpeg2000(pixels)
    yield "jpeg2000.dcm", encapsulated([stream], JPEG2000Lossless, pixels, **UIDS)
    elements, _ = palette_elements(pixels)
    yield "palette.dcm", to_bytes(make_dataset(pixels, **{**elements, **UIDS}))
    two = np.concatenate([pixels, pixels]).tobytes()
    yield "frames.dcm", to_bytes(make_dataset(pixels, NumberOfFrames=2, PixelData=two, **UIDS))
    yield "cut.dcm", to_bytes(make_dataset(pixels, **UIDS))[:-100]


def main() -> None:
    for target, files in (("picture", pictures()), ("dicom", objects())):
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in files:
            (CORPUS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
