"""DICOM photographs become the right pixels, and hostile ones a clear refusal within bounds."""

import io
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    VLPhotographicImageStorage,
)

from app.domain.errors import (
    DicomFrameError,
    DicomNotPhotographError,
    DicomSupportMissingError,
    ImageCorruptError,
    ImageFormatError,
    ImageRejectedError,
    ImageTooManyBytesError,
    ImageTooManyPixelsError,
    ImageTooSmallError,
)
from app.domain.heatmaps import encode_png
from app.domain.images import DEFAULT_LIMITS, ImageLimits, RgbImage, decode_image
from app.domain.jpeg import MAX_JPEG_SCANS
from app.interop.dicom_intake import admit
from app.interop.dicom_pixels import read_photograph
from app.interop.uploads import read_any_upload
from tests.dicom_photographs import (
    encapsulated,
    jpeg_photograph,
    lesion,
    make_dataset,
    palette_elements,
    rle_photograph,
    to_bytes,
    to_jpeg,
    to_jpeg2000,
    to_ybr,
    to_ybr_422,
)

PIXELS = lesion()


def read(data: bytes, frame: int | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> RgbImage:
    photograph = read_photograph(data, limits, frame)
    pixels = photograph.decoded.pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.shape == (photograph.decoded.height, photograph.decoded.width, 3)
    return pixels


LOSSLESS: dict[str, Callable[[], bytes]] = {
    "implicit": lambda: to_bytes(make_dataset(), ImplicitVRLittleEndian),
    "explicit": lambda: to_bytes(make_dataset(), ExplicitVRLittleEndian),
    "deflated": lambda: to_bytes(make_dataset(), DeflatedExplicitVRLittleEndian),
    "photographic": lambda: to_bytes(make_dataset(SOPClassUID=VLPhotographicImageStorage)),
    "planar": lambda: to_bytes(
        make_dataset(PlanarConfiguration=1, PixelData=PIXELS.transpose(2, 0, 1).tobytes())
    ),
    "run-length": lambda: rle_photograph(PIXELS),
    "JPEG 2000 RCT": lambda: encapsulated(
        [to_jpeg2000(PIXELS, mct=1)], JPEG2000Lossless, PhotometricInterpretation="YBR_RCT"
    ),
    "JPEG 2000 RGB": lambda: encapsulated(
        [to_jpeg2000(PIXELS, mct=0)], JPEG2000Lossless, PhotometricInterpretation="RGB"
    ),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_forms_give_the_same_pixels(name: str) -> None:
    np.testing.assert_array_equal(read(LOSSLESS[name]()), PIXELS)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_a_jpeg_frame_is_the_jpeg_file(photometric: str) -> None:
    # A JFIF stream is YCbCr whatever the object says: many writers leave RGB there.
    data = jpeg_photograph(PIXELS, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(read(data), decode_image(to_jpeg(PIXELS)).pixels)


def without_jfif(jpeg: bytes) -> bytes:
    assert jpeg[2:4] == b"\xff\xe0"
    length = int.from_bytes(jpeg[4:6], "big")
    return jpeg[:2] + jpeg[4 + length :]


def test_of_a_jpeg_frame_without_markers_the_object_says_the_colours() -> None:
    ybr_stream = without_jfif(to_jpeg(PIXELS))
    as_ybr = encapsulated([ybr_stream], JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    np.testing.assert_array_equal(read(as_ybr), decode_image(to_jpeg(PIXELS)).pixels)
    # What a writer of RGB streams would have encoded, subsampling aside.
    stored = Image.merge("YCbCr", Image.fromarray(PIXELS).split())
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=100, subsampling=0)
    rgb_stream = without_jfif(buffer.getvalue())
    as_rgb = encapsulated([rgb_stream], JPEGBaseline8Bit, PhotometricInterpretation="RGB")
    difference = np.abs(read(as_rgb).astype(int) - PIXELS)
    assert difference.mean() < 1
    named = to_jpeg(PIXELS, keep_rgb=True)
    as_named = encapsulated([named], JPEGBaseline8Bit, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(read(as_named), decode_image(named).pixels)


def test_lossy_jpeg_2000_is_near() -> None:
    stream = to_jpeg2000(PIXELS, irreversible=True, quality_mode="rates", quality_layers=[8])
    data = encapsulated([stream], JPEG2000, PhotometricInterpretation="YBR_ICT")
    assert np.abs(read(data).astype(int) - PIXELS).mean() < 3


@pytest.mark.parametrize("kind", ["raw", "run-length", "JPEG 2000"])
def test_ybr_is_converted(kind: str) -> None:
    ybr = to_ybr(PIXELS)
    elements: dict[str, Any] = {"PhotometricInterpretation": "YBR_FULL"}
    data = {
        "raw": lambda: to_bytes(make_dataset(ybr, **elements)),
        "run-length": lambda: rle_photograph(ybr, **elements),
        "JPEG 2000": lambda: encapsulated([to_jpeg2000(ybr, mct=0)], JPEG2000Lossless, **elements),
    }[kind]()
    assert np.abs(read(data).astype(int) - PIXELS).max() <= 2


def test_subsampled_ybr_is_converted() -> None:
    data = to_bytes(
        make_dataset(PhotometricInterpretation="YBR_FULL_422", PixelData=to_ybr_422(PIXELS))
    )
    assert np.abs(read(data).astype(int) - PIXELS).mean() < 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_palettes_are_applied(bits: int, compressed: bool) -> None:
    elements, expected = palette_elements(PIXELS, bits=bits)
    data = rle_photograph(PIXELS, **elements) if compressed else to_bytes(make_dataset(**elements))
    np.testing.assert_array_equal(read(data), expected)


@pytest.mark.parametrize("kind", ["raw", "JPEG", "run-length"])
def test_frames_are_counted_from_1(kind: str) -> None:
    frames = [lesion(seed) for seed in (1, 2, 3)]
    stacked = b"".join(frame.tobytes() for frame in frames)
    if kind == "JPEG":
        data = encapsulated(
            [to_jpeg(frame) for frame in frames],
            JPEGBaseline8Bit,
            PhotometricInterpretation="YBR_FULL_422",
            NumberOfFrames=3,
        )
        expected = [decode_image(to_jpeg(frame)).pixels for frame in frames]
    else:
        dataset = make_dataset(NumberOfFrames=3, PixelData=stacked)
        if kind == "run-length":
            dataset.compress(RLELossless, generate_instance_uid=False)
        data, expected = to_bytes(dataset), frames
    for number, pixels in enumerate(expected, 1):
        np.testing.assert_array_equal(read(data, number), pixels)
    with pytest.raises(DicomFrameError, match="has 3 frames and it is not said which"):
        read(data)
    for wrong in (0, 4, 2**31):
        with pytest.raises(DicomFrameError, match="frames are 1 to 3"):
            read(data, wrong)


def test_the_only_frame_needs_no_name() -> None:
    data = to_bytes(make_dataset(NumberOfFrames=1))
    np.testing.assert_array_equal(read(data), read(data, 1))


@pytest.mark.parametrize(
    ("elements", "error", "words"),
    [
        (
            {"SOPClassUID": MultiFrameTrueColorSecondaryCaptureImageStorage},
            DicomNotPhotographError,
            "is Multi-frame True Color Secondary Capture Image Storage; expected Dermoscopic",
        ),
        ({"SOPClassUID": "1.2.3.4"}, DicomNotPhotographError, "none of the standard's"),
        (
            {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1},
            DicomNotPhotographError,
            "no colour photograph",
        ),
        ({"PhotometricInterpretation": "YBR_RCT"}, ImageFormatError, "JPEG 2000 alone"),
        ({"BitsAllocated": 16, "BitsStored": 12}, ImageFormatError, "BitsAllocated is 16"),
        ({"BitsStored": 5}, ImageFormatError, "BitsStored is 5"),
        ({"PixelRepresentation": 1}, ImageFormatError, "PixelRepresentation is 1"),
        ({"SamplesPerPixel": 1}, ImageFormatError, "SamplesPerPixel is 1"),
        ({"Rows": 60000, "Columns": 60000}, ImageTooManyPixelsError, "60000 x 60000"),
        ({"Rows": 50}, ImageTooSmallError, "at least 112"),
        ({"Rows": 0}, ImageTooSmallError, "at least 112"),
        ({"Rows": None}, ImageCorruptError, "Rows is missing"),
        ({"Rows": 241}, ImageCorruptError, "pixel data cannot be decoded"),
        ({"NumberOfFrames": -1}, ImageCorruptError, "below 1"),
        ({"NumberOfFrames": 2}, DicomFrameError, "2 frames"),
        ({"PixelData": b""}, ImageCorruptError, "pixel data cannot be decoded"),
        ({"PixelData": PIXELS.tobytes()[:-2000]}, ImageCorruptError, "cannot be decoded"),
    ],
)
def test_what_is_no_photograph_is_refused(
    elements: dict[str, Any], error: type[ImageRejectedError], words: str
) -> None:
    with pytest.raises(error, match=words):
        read(to_bytes(make_dataset(**elements)))


def test_missing_pixel_data_are_noticed() -> None:
    dataset = make_dataset()
    del dataset.PixelData
    with pytest.raises(ImageCorruptError, match="missing, truncated"):
        read(to_bytes(dataset))


@pytest.mark.parametrize(
    "place", ["dicom_files.read_dataset", "dicom_files.Dataset.get", "dicom_pixels.get_decoder"]
)
@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("out of memory when reading image file")], ids=repr
)
def test_a_good_photograph_is_not_called_damaged_for_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    data = to_bytes(make_dataset())
    monkeypatch.setattr(f"app.interop.{place}", fail)
    with pytest.raises(type(error)):
        read(data)


@pytest.mark.parametrize("value", ["many", "240", "", "1.5"])
def test_a_wrong_value_representation_is_noticed(value: str) -> None:
    dataset = make_dataset()
    dataset.add_new("Rows", "LO", value)
    with pytest.raises(ImageCorruptError, match="Rows is missing or no whole number"):
        read(to_bytes(dataset))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, UID("1.2.840.10008.1.2.4.80"), UID("1.2")])
def test_another_transfer_syntax_is_refused(syntax: UID) -> None:
    data = to_bytes(make_dataset())
    old, new = ExplicitVRLittleEndian.encode(), syntax.encode()
    padded = new + b"\0" * (len(new) % 2)
    start = data.index(old)
    field = struct.pack("<H", len(padded)) + padded
    end = start + len(old) + len(old) % 2
    with pytest.raises(ImageFormatError, match="expected one of Implicit VR Little Endian"):
        read(data[: start - 2] + field + data[end:])


def test_bytes_cut_anywhere_are_refused() -> None:
    for data in (to_bytes(make_dataset()), jpeg_photograph(PIXELS), LOSSLESS["deflated"]()):
        for end in (132, 140, 200, 340, 700, len(data) // 2, len(data) - 40):
            with pytest.raises(ImageRejectedError):
                read(data[:end])


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_refused_or_read(seed: int) -> None:
    random = np.random.default_rng(seed)
    for data in (jpeg_photograph(PIXELS), rle_photograph(PIXELS), LOSSLESS["JPEG 2000 RCT"]()):
        damaged = bytearray(data)
        for place in random.integers(132, 1200, 8):
            damaged[place] = random.integers(256)
        try:
            read(bytes(damaged))
        except ImageRejectedError:
            continue


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000, RLELossless])
@pytest.mark.parametrize("frame", [b"\0\0", b"garbage" * 1000, b"\xff\xd8\xff\xd9", bytes(64)])
def test_encapsulated_garbage_is_refused(syntax: UID, frame: bytes) -> None:
    with pytest.raises(ImageCorruptError):
        read(encapsulated([frame], syntax))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000])
def test_a_frame_of_another_size_than_declared_is_refused(syntax: UID) -> None:
    other = lesion(7, 640, 480)
    stream = to_jpeg(other) if syntax == JPEGBaseline8Bit else to_jpeg2000(other)
    with pytest.raises(ImageCorruptError, match="declares 320 x 240 pixels of colour"):
        read(encapsulated([stream], syntax, PhotometricInterpretation="RGB"))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    with pytest.raises(ImageCorruptError, match="scans"):
        read(jpeg_photograph_with_scans())


def jpeg_photograph_with_scans() -> bytes:
    stream = to_jpeg(PIXELS)
    start = stream.rindex(b"\xff\xda")
    scan, end = stream[start:-2], stream[-2:]
    return encapsulated([stream[:start] + scan * (MAX_JPEG_SCANS + 1) + end], JPEGBaseline8Bit)


def peak_megabytes(data: bytes, limits: ImageLimits) -> float:
    tracemalloc.start()
    try:
        with pytest.raises(ImageRejectedError):
            read(data, limits=limits)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_what_swells_is_bounded() -> None:
    limits = ImageLimits(max_pixels=320 * 240)
    plain = to_bytes(make_dataset(), DeflatedExplicitVRLittleEndian)
    bomb = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    filler = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 400_000_000)
    start = plain.index(DeflatedExplicitVRLittleEndian.encode())
    after_meta = 132 + 12 + struct.unpack_from("<I", plain, 132 + 8)[0]
    assert start < after_meta
    packed = bomb.compress(filler + bytes(400_000_000)) + bomb.flush()
    assert peak_megabytes(plain[:after_meta] + packed, limits) < 10
    runs = struct.pack("<16I", 3, 64, 65, 66, *[0] * 12) + b"\x81\0" * 4_000_000
    assert peak_megabytes(encapsulated([runs], RLELossless), limits) < 60


@pytest.mark.parametrize("items", ["wide", "deep", "elements"])
def test_sequences_without_end_are_bounded(items: str) -> None:
    limits = DEFAULT_LIMITS
    header = struct.pack("<HH2sHI", 0x0040, 0x0555, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    if items == "wide":
        hostile = header + (item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)) * 200_000
    elif items == "deep":
        hostile = (header + item) * 5_000
    else:
        hostile = b"".join(
            struct.pack("<HH2sH", 0x0009 + i // 60_000 * 2, i % 60_000, b"UN", 0) + bytes(4)
            for i in range(200_000)
        )
    dataset = to_bytes(make_dataset())
    after_meta = 132 + 12 + struct.unpack_from("<I", dataset, 132 + 8)[0]
    assert peak_megabytes(dataset[:after_meta] + hostile, limits) < 80


def test_nested_sequences_of_a_real_object_are_read() -> None:
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "99X", "x"
    dataset = make_dataset(AnatomicRegionSequence=Sequence([inner]))
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        np.testing.assert_array_equal(read(to_bytes(dataset, syntax)), PIXELS)


def test_uploads_are_told_apart_by_their_bytes() -> None:
    lesion_png, dicom = encode_png(lesion()), to_bytes(make_dataset())
    png, from_dicom = (read_any_upload(d, DEFAULT_LIMITS, 1024) for d in (lesion_png, dicom))
    assert (png.media_type, from_dicom.media_type) == ("image/png", "application/dicom")
    np.testing.assert_array_equal(png.model_input, from_dicom.model_input)
    np.testing.assert_array_equal(png.picture, from_dicom.picture)
    with pytest.raises(DicomFrameError, match="no DICOM object"):
        read_any_upload(lesion_png, DEFAULT_LIMITS, 1024, 1)
    with pytest.raises(ImageTooManyBytesError):
        read_any_upload(dicom, ImageLimits(max_bytes=1000), 1024)


def test_without_the_extra_dicom_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, lesion_png: bytes
) -> None:
    for module in ("app.interop.dicom_pixels", "pydicom"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DicomSupportMissingError, match="extra `interop`"):
        read_any_upload(bytes(128) + b"DICM", DEFAULT_LIMITS, 1024)
    assert read_any_upload(lesion_png, DEFAULT_LIMITS, 1024).width == 320


def damaged_value(keyword: str) -> bytes:
    """A photograph whose element is said to be a number and has an odd number of bytes."""
    dataset = make_dataset()
    element = dataset[keyword]
    data = bytearray(to_bytes(dataset))
    header = struct.pack("<HH", element.tag.group, element.tag.element) + element.VR.encode()
    place = data.index(header, 300)
    data[place + 4 : place + 6] = b"US"
    data[place + 6] -= 1
    return bytes(data)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "StudyInstanceUID"])
def test_identifiers_that_cannot_be_read_are_a_refusal(keyword: str) -> None:
    with pytest.raises(ImageRejectedError):
        admit(damaged_value(keyword), DEFAULT_LIMITS)
