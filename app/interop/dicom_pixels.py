"""From a DICOM photograph to RGB pixels, with every declared size checked before one is decoded.

```
data elements -> SOP class -> frame -> rows x columns -> decode -> colour space -> RGB uint8
```

Colour profiles are not applied, as for all uploads: values are taken as sRGB.
"""

import io
import struct
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    RLELossless,
)

from app.domain.errors import (
    DermHybridError,
    DicomFrameError,
    DicomNotPhotographError,
    ImageCorruptError,
    ImageFormatError,
    is_exhaustion,
)
from app.domain.images import DecodedImage, ImageLimits, RgbImage, check_size
from app.domain.jpeg import check_jpeg
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_files import check_photograph, read_object
from app.interop.jpeg2000 import check_jpeg2000
from app.interop.uploads import DICOM_MEDIA_TYPE

_PALETTE: Final = "PALETTE COLOR"
_RGB: Final = "RGB"
_TRUE_COLOUR: Final = frozenset({_RGB, "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_DECODED_TO_RGB: Final = frozenset({_RGB, "YBR_ICT", "YBR_RCT"})
"""JPEG 2000 undoes its own transformations (PS3.5, section 8.2.4)."""
_RLE_HEADER: Final = struct.Struct("<16I")


@dataclass(frozen=True, slots=True)
class Photograph:
    """A DICOM photograph.

    Attributes:
        dataset: Its data elements, unchecked beside those of its pixels.
        frame: The frame that was decoded, from 1.
        num_frames: How many there are.
        decoded: Its pixels.
    """

    dataset: Dataset
    frame: int
    num_frames: int
    decoded: DecodedImage

    @property
    def named_frame(self) -> int | None:
        """The frame, where there are several to be told apart."""
        return self.frame if self.num_frames > 1 else None


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the image pixel module (PS3.3, C.7.6.3) declares, within the bounds.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        num_frames: How many frames there are, at least 1.
        photometric: Photometric interpretation.
    """

    rows: int
    columns: int
    num_frames: int
    photometric: str

    @property
    def num_samples(self) -> int:
        """Of a pixel, 8 bits each."""
        return 1 if self.photometric == _PALETTE else 3


def read_photograph(data: bytes, limits: ImageLimits, frame: int | None = None) -> Photograph:
    """Read a photograph out of a DICOM file.

    Args:
        data: The file's bytes, of any origin.
        limits: Bounds on pixels, checked before any is decoded.
        frame: Which one, from 1; None for the only one.

    Raises:
        DicomNotPhotographError: Another SOP class, or no colour picture of 8 bits.
        DicomFrameError: There are several frames and none is named, or there is no such frame.
        ImageTooManyPixelsError: A frame has more than `limits.max_pixels`.
        ImageTooSmallError: A side is shorter than `limits.min_side_pixels`.
        ImageFormatError: Another transfer syntax, or a form of pixels that is not read.
        ImageCorruptError: It cannot be decoded.
    """
    dataset = read_object(data, limits)
    try:
        check_photograph(dataset)
        layout = _layout(dataset)
        check_size(layout.columns, layout.rows, limits)
        chosen = _choose_frame(frame, layout.num_frames)
        pixels = _decode(dataset, layout, chosen - 1)
    except DermHybridError:
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes
        if is_exhaustion(error):
            raise  # the file may be a good one
        raise ImageCorruptError(
            "The DICOM object's pixel data cannot be decoded: they are missing, truncated, or not "
            "as the object declares them. Export or transfer it again."
        ) from error
    decoded = DecodedImage(pixels, layout.columns, layout.rows, DICOM_MEDIA_TYPE)
    return Photograph(dataset, chosen, layout.num_frames, decoded)


def _layout(dataset: Dataset) -> _Layout:
    photometric = dataset.get("PhotometricInterpretation")
    if photometric != _PALETTE and photometric not in _TRUE_COLOUR:
        raise DicomNotPhotographError(
            "The DICOM object is no colour photograph by its Photometric Interpretation; expected "
            f"{', '.join(sorted(_TRUE_COLOUR))} or {_PALETTE}. Grey pictures are not answered: the "
            "models were trained on colour."
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames < 1:
        raise ImageCorruptError("The DICOM object's Number of Frames is below 1. Export it again.")
    layout = _Layout(
        _integer(dataset, "Rows"), _integer(dataset, "Columns"), frames, str(photometric)
    )
    expected = {
        "SamplesPerPixel": layout.num_samples,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "PixelRepresentation": 0,
    }
    for keyword, value in expected.items():
        if (found := _integer(dataset, keyword)) != value:
            raise ImageFormatError(
                f"The DICOM object's {keyword} is {found}; of {layout.photometric} pictures those "
                f"with {value} are read. Export it with 8 bits a sample."
            )
    return layout


def _integer(dataset: Dataset, keyword: str) -> int:
    value = dataset.get(keyword)
    if not isinstance(value, int):
        raise ImageCorruptError(
            f"The DICOM object's {keyword} is missing or no whole number. Export it again."
        )
    return value


def _choose_frame(frame: int | None, num_frames: int) -> int:
    if frame is None and num_frames > 1:
        raise DicomFrameError(
            f"The DICOM object has {num_frames} frames and it is not said which one is meant. "
            f"Ask /predict with `frame`, from 1 to {num_frames}, or send one frame as an object."
        )
    if frame is not None and not 1 <= frame <= num_frames:
        raise DicomFrameError(
            f"The DICOM object has no frame {frame}; its frames are 1 to {num_frames}."
        )
    return frame or 1


def _decode(dataset: Dataset, layout: _Layout, index: int) -> RgbImage:
    """One frame as (rows, columns, 3) uint8 sRGB, C-contiguous."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        samples = get_decoder(syntax).as_array(dataset, index=index, raw=True)[0]
        return _to_rgb(samples, dataset, layout)
    encoded = get_frame(dataset.PixelData, index, number_of_frames=layout.num_frames)
    if syntax == RLELossless:
        return _to_rgb(_decode_rle(encoded, layout), dataset, layout)
    if layout.photometric == _PALETTE:
        raise ImageFormatError(
            "A palette's indices cannot be in a JPEG stream. Export the picture as RGB."
        )
    image = _open_stream(encoded, layout, syntax)
    pixels = np.ascontiguousarray(np.asarray(image.convert(_RGB), np.uint8))
    if syntax == JPEGBaseline8Bit or layout.photometric in _DECODED_TO_RGB:
        return pixels
    return _ybr_to_rgb(pixels)


def _open_stream(encoded: bytes, layout: _Layout, syntax: UID) -> Image.Image:
    """A JPEG or JPEG 2000 stream, whose own header must say what the object does."""
    is_jpeg = syntax == JPEGBaseline8Bit
    (check_jpeg if is_jpeg else check_jpeg2000)(encoded)
    image = Image.open(io.BytesIO(encoded), formats=["JPEG" if is_jpeg else "JPEG2000"])
    if image.size != (layout.columns, layout.rows) or image.mode != _RGB:
        raise ImageCorruptError(
            f"The DICOM object declares {layout.columns} x {layout.rows} pixels of colour, and its "
            f"frame is {image.width} x {image.height} of mode {image.mode}. Export it again."
        )
    return _without_wrong_transformation(image, layout) if is_jpeg else image


def _without_wrong_transformation(image: Image.Image, layout: _Layout) -> Image.Image:
    """To the decoder a stream that says nothing of its colours is YCbCr; the object may know.

    A stream's own words (JFIF, Adobe, component identifiers) come before the object's, which
    many writers leave at RGB.
    """
    says_itself = {"jfif", "adobe"} & set(image.info)
    identifiers = bytes(component[0] for component in getattr(image, "layer", ()))
    if layout.photometric != _RGB or says_itself or identifiers.upper() == b"RGB":
        return image
    image.draft("YCbCr", image.size)
    return Image.merge(_RGB, image.split())


def _decode_rle(encoded: bytes, layout: _Layout) -> npt.NDArray[np.uint8]:
    """Undo the run-length encoding of PS3.5, annex G.

    Pillow's decoder of the same PackBits runs stops at the size that it is given; pydicom's
    would unfold runs of any length first.

    Returns:
        (rows, columns, 3) uint8, or (rows, columns) of palette indices.
    """
    num_segments, *offsets = _RLE_HEADER.unpack_from(encoded)
    if num_segments != layout.num_samples:
        raise ImageCorruptError(
            f"The DICOM object's frame has {num_segments} run-length segments; expected "
            f"{layout.num_samples}. Export it again."
        )
    ends = [*offsets[1:num_segments], len(encoded)]
    size = (layout.rows * layout.columns, 1)
    planes = [
        np.asarray(Image.frombytes("L", size, encoded[start:end], "packbits", "L"))
        for start, end in zip(offsets[:num_segments], ends, strict=True)
    ]
    pixels = [plane.reshape(layout.rows, layout.columns) for plane in planes]
    return pixels[0] if layout.num_samples == 1 else np.stack(pixels, axis=2)


def _to_rgb(samples: npt.NDArray[np.uint8], dataset: Dataset, layout: _Layout) -> RgbImage:
    if layout.photometric == _PALETTE:
        return _apply_palette(samples, dataset)
    if layout.photometric == _RGB:
        return np.ascontiguousarray(samples, np.uint8)
    if layout.photometric not in ("YBR_FULL", "YBR_FULL_422"):
        raise ImageFormatError(
            f"{layout.photometric} is for JPEG 2000 alone, and the object is not compressed so. "
            "Export the picture as RGB."
        )
    return _ybr_to_rgb(samples)


def _ybr_to_rgb(samples: npt.NDArray[np.uint8]) -> RgbImage:
    """Full-range YCbCr of ITU-R BT.601 to RGB (PS3.3, C.7.6.3.1.2)."""
    y_cr_cb = np.ascontiguousarray(samples[..., [0, 2, 1]])
    return np.asarray(cv2.cvtColor(y_cr_cb, cv2.COLOR_YCrCb2RGB), np.uint8)


def _apply_palette(indices: npt.NDArray[np.uint8], dataset: Dataset) -> RgbImage:
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise ImageFormatError("Segmented palettes are not read. Export the picture as RGB.")
    _, first_index, bits = dataset.RedPaletteColorLookupTableDescriptor
    if first_index < 0 or bits not in (8, 16):
        raise ImageFormatError(
            "The DICOM object's palette is not of a form that is read; expected entries of 8 or "
            "16 bits for indices from 0. Export the picture as RGB."
        )
    colours = apply_color_lut(indices, dataset)[..., :3]
    return np.ascontiguousarray(colours >> (bits - 8), np.uint8)
