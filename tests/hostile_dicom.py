"""DICOM files that mean harm: cut, lying, swelling, or full of a patient's name.

Each has a word of `MARKER` where it has a place for text, so that a log that quotes it is caught.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    ComprehensiveSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from app.domain.images import RgbImage
from tests.dicom_photographs import (
    encapsulated,
    jpeg_photograph,
    lesion,
    make_dataset,
    rle_photograph,
    to_bytes,
    to_jpeg,
    to_jpeg2000,
)

MARKER = "Zzyzx-Quux"
"""A patient's name."""

PIXELS = lesion(7, 160, 120)
SWOLLEN_BYTES = 200_000_000
"""What the bombs unfold to, of a few hundred kilobytes."""

START_OF_TILE = b"\xff\x90\x00\x0a"
"""JPEG 2000's SOT, with its length."""

_PLACES = (
    "PatientName",
    "PatientID",
    "OtherPatientNames",
    "PatientComments",
    "PatientAddress",
    "ReferringPhysicianName",
    "OperatorsName",
    "InstitutionName",
    "StudyDescription",
    "SeriesDescription",
    "AccessionNumber",
    "ImageComments",
    "DeviceSerialNumber",
)
NAMES: dict[str, Any] = dict.fromkeys(_PLACES, MARKER)


def photograph(pixels: RgbImage = PIXELS, **elements: Any) -> Dataset:
    """A photograph of somebody named `MARKER`."""
    dataset = make_dataset(pixels, **{**NAMES, **elements})
    block = dataset.private_block(0x0009, MARKER, create=True)
    block.add_new(0x01, "LO", MARKER)
    block.add_new(0x02, "UN", MARKER.encode())
    return dataset


def benign() -> dict[str, bytes]:
    """What is answered although it is full of names, or breaks the standard where nobody looks."""
    inner = Dataset()
    inner.PatientName = MARKER
    inner.CodeMeaning = MARKER
    wrong = photograph()
    wrong.PatientBirthDate = wrong.PatientSex = wrong.StudyTime = MARKER
    wrong.add_new("InstanceNumber", "LO", MARKER)
    wrong.add_new("SpecificCharacterSet", "CS", MARKER)
    # Of the last element: all pixels are there, and nothing is taken for more of them.
    length_that_lies = bytearray(to_bytes(photograph()))
    place = length_that_lies.rindex(b"\xe0\x7f\x10\x00OB") + 8
    struct.pack_into("<I", length_that_lies, place, 0xFFFFFFF0)
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "1.2.3", "ISO"
    open_ended = photograph(IssuerOfPatientIDQualifiersSequence=Sequence([issuer]))
    open_ended["IssuerOfPatientIDQualifiersSequence"].is_undefined_length = True
    return {
        "pixels-length": bytes(length_that_lies),
        "length-left-open": to_bytes(open_ended),
        "length-left-open-implicit": to_bytes(open_ended, ImplicitVRLittleEndian),
        "names": to_bytes(photograph()),
        "nested-names": to_bytes(photograph(OtherPatientIDsSequence=Sequence([inner] * 3))),
        "wrong-values": to_bytes(wrong),
        "implicit": to_bytes(photograph(), ImplicitVRLittleEndian),
        "deflated": to_bytes(photograph(), DeflatedExplicitVRLittleEndian),
        "jpeg": jpeg_photograph(PIXELS, **NAMES),
        "long-name": to_bytes(photograph(PatientComments=MARKER * 3000)),
    }


def after_meta(data: bytes) -> int:
    """Where a file's data set begins."""
    return 132 + 12 + int(struct.unpack_from("<I", data, 132 + 8)[0])


@cache
def deflated_bomb() -> bytes:
    """A deflated data set that begins as a photograph and goes on for `SWOLLEN_BYTES`."""
    plain = to_bytes(photograph())
    deflated = to_bytes(photograph(), DeflatedExplicitVRLittleEndian)
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    filler = struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, SWOLLEN_BYTES)
    packed = stream.compress(plain[after_meta(plain) :] + filler + bytes(SWOLLEN_BYTES))
    return deflated[: after_meta(deflated)] + packed + stream.flush()


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header says a size that its data do not have."""
    stream = bytearray(to_jpeg(PIXELS))
    start = stream.index(b"\xff\xc0")
    struct.pack_into(">HH", stream, start + 5, height, width)
    return bytes(stream)


@cache
def jpeg_bomb() -> bytes:
    """A JPEG of one colour, 10000 x 7000: 210 megabytes once decoded."""
    return to_jpeg(np.full((7_000, 10_000, 3), 150, np.uint8))


def runs_bomb() -> bytes:
    """Run-length segments that unfold to gigabytes."""
    return struct.pack("<16I", 3, 64, 65, 66, *[0] * 12) + b"\x81\0" * 500_000


def many_items(header: bytes, item: bytes, number: int) -> bytes:
    data = to_bytes(photograph())
    return data[: after_meta(data)] + header + item * number


def jpeg2000_header(
    width: int,
    height: int,
    *,
    tile: int = 2**31,
    layers: int = 1,
    block: int = 4,
    precincts: str = "",
) -> bytes:
    """A header without pixels; `precincts` in hexadecimal, a byte for each of six resolutions."""
    size = struct.pack(">H8IH", 0, width, height, 0, 0, tile, tile, 0, 0, 3) + 3 * bytes([7, 1, 1])
    style = struct.pack(">BBHB5B", bool(precincts), 0, layers, 0, 5, block, block, 0, 1)
    style += bytes.fromhex(precincts)
    segments = ((0x51, size), (0x52, style), (0x5C, b"\x42" + bytes(19)))
    header = b"".join(
        struct.pack(">BBH", 0xFF, low, len(body) + 2) + body for low, body in segments
    )
    return b"\xff\x4f" + header + START_OF_TILE + bytes(8) + b"\xff\x93" + bytes(64)


def refused() -> dict[str, Callable[[], bytes]]:
    """What must be refused, each made when it is asked for."""
    sequence = struct.pack("<HH2sHI", 0x0040, 0x0555, b"SQ", 0, 0xFFFFFFFF)
    open_item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    empty_item = open_item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    jpeg = {"PhotometricInterpretation": "YBR_FULL_422"}
    two: dict[str, Any] = {**jpeg, "NumberOfFrames": 2}

    def of(**elements: Any) -> Callable[[], bytes]:
        return lambda: to_bytes(photograph(**elements))

    def frames(syntax: UID, *given: bytes, **elements: Any) -> Callable[[], bytes]:
        return lambda: encapsulated(list(given), syntax, PIXELS, **{**NAMES, **elements})

    def wrong_vr(keyword: str, vr: str, value: Any) -> Callable[[], bytes]:
        def make() -> bytes:
            dataset = photograph()
            dataset.add_new(keyword, vr, value)
            return to_bytes(dataset)

        return make

    def offsets_that_lie() -> bytes:
        dataset = photograph(**two)
        dataset.PixelData = struct.pack(
            "<HHI2IHHI", 0xFFFE, 0xE000, 8, 0, 0xFFFFFFF0, 0xFFFE, 0xE000, 0xFFFFFFFE
        ) + to_jpeg(PIXELS)
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        return to_bytes(dataset, JPEGBaseline8Bit)

    def no_pixels() -> bytes:
        dataset = photograph()
        del dataset.PixelData
        return to_bytes(dataset)

    def twice_in_one_stream() -> bytes:
        dataset = photograph(**two)
        dataset.PixelData = encapsulate([to_jpeg(PIXELS)])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        return to_bytes(dataset, JPEGBaseline8Bit)

    return {
        "rows-huge": of(Rows=65_535, Columns=65_535),
        "rows-one-more": of(Rows=PIXELS.shape[0] + 1),
        "columns-huge": of(Columns=65_535),
        "rows-zero": of(Rows=0),
        "samples-lie": of(SamplesPerPixel=1),
        "planar-lies": of(PlanarConfiguration=7, PixelData=PIXELS.tobytes()[:-3]),
        "bits-16": of(BitsAllocated=16, BitsStored=16, HighBit=15),
        "monochrome": of(PhotometricInterpretation="MONOCHROME2", SamplesPerPixel=1),
        "monochrome-of-3": of(PhotometricInterpretation="MONOCHROME1"),
        "photometric-name": of(PhotometricInterpretation=MARKER),
        "class-ct": of(SOPClassUID=CTImageStorage),
        "class-pdf": of(SOPClassUID=EncapsulatedPDFStorage),
        "class-report": of(SOPClassUID=ComprehensiveSRStorage),
        "class-name": of(SOPClassUID=MARKER),
        "frames-1000": of(NumberOfFrames=1000),
        "frames-negative": of(NumberOfFrames=-1),
        "frames-huge": of(NumberOfFrames=2**31 - 1),
        "frames-two-of-one": twice_in_one_stream,
        "frames-offsets": offsets_that_lie,
        "pixels-none": no_pixels,
        "pixels-empty": of(PixelData=b""),
        "pixels-short": of(PixelData=PIXELS.tobytes()[:-1000]),
        "vr-rows-text": wrong_vr("Rows", "LO", MARKER),
        "vr-rows-sequence": wrong_vr("Rows", "SQ", Sequence([Dataset()])),
        "vr-columns-float": wrong_vr("Columns", "FD", 160.0),
        "vr-frames-text": wrong_vr("NumberOfFrames", "LO", MARKER),
        "vr-photometric-bytes": wrong_vr("PhotometricInterpretation", "OB", MARKER.encode()),
        "vr-class-text": wrong_vr("SOPClassUID", "LO", MARKER),
        "deflated-bomb": deflated_bomb,
        "deflated-garbage": lambda: to_bytes(photograph(), DeflatedExplicitVRLittleEndian)[:-60],
        "jpeg-bomb": lambda: encapsulated([jpeg_bomb()], JPEGBaseline8Bit, PIXELS, **jpeg),
        "jpeg-bomb-declared": lambda: encapsulated(
            [jpeg_bomb()], JPEGBaseline8Bit, PIXELS, **jpeg, Rows=7_000, Columns=10_000
        ),
        "jpeg-size-lies": frames(JPEGBaseline8Bit, jpeg_of_size(65_500, 65_500), **jpeg),
        "jpeg-scans": frames(
            JPEGBaseline8Bit, to_jpeg(PIXELS)[:-2] + b"\xff\xda" * 101 + b"\xff\xd9", **jpeg
        ),
        "jpeg-garbage": frames(JPEGBaseline8Bit, MARKER.encode() * 500, **jpeg),
        "jpeg-2000-cut": frames(
            JPEG2000, to_jpeg2000(PIXELS)[:200], PhotometricInterpretation="YBR_RCT"
        ),
        "runs-bomb": frames(RLELossless, runs_bomb()),
        "runs-offsets": frames(RLELossless, struct.pack("<16I", 3, *[0xFFFFFFF0] * 15)),
        "sequence-wide": lambda: many_items(sequence, empty_item, 200_000),
        "sequence-deep": lambda: many_items(b"", sequence + open_item, 5_000),
        "elements-many": lambda: many_items(
            b"", struct.pack("<HH2sH4s", 0x0009, 0x1001, b"LO", 4, b"Zzyz"), 200_000
        ),
        # Short as files, long as objects.
        "value-of-backslashes": wrong_vr("PhotometricInterpretation", "UC", "\\" * 1_000_000),
        "value-of-numbers": wrong_vr("NumberOfFrames", "IS", ["1"] * 500_000),
        "value-of-items": wrong_vr(
            "IssuerOfPatientIDQualifiersSequence", "SQ", Sequence([Dataset()] * 1_000)
        ),
        "charset-of-backslashes": wrong_vr("SpecificCharacterSet", "UC", "\\" * 1_000_000),
        "pixels-of-backslashes": wrong_vr("PixelData", "UC", "\\" * 1_000_000),
        "precincts-of-a-pixel": frames(
            JPEG2000, jpeg2000_header(1000, 1000, precincts="000000000000"), Rows=1000, Columns=1000
        ),
        "own-result": of(Manufacturer="DermHybrid", PixelData=PIXELS.tobytes()[:-1000]),
        "no-study": of(StudyInstanceUID="", PixelData=PIXELS.tobytes()[:-1000]),
    }


def cut() -> dict[str, bytes]:
    """Photographs of four transfer syntaxes, cut at every kind of place."""
    whole = {
        "explicit": to_bytes(photograph()),
        "deflated": to_bytes(photograph(), DeflatedExplicitVRLittleEndian),
        "jpeg": jpeg_photograph(PIXELS, **NAMES),
        "runs": rle_photograph(PIXELS, **NAMES),
    }
    found: dict[str, bytes] = {}
    for name, data in whole.items():
        # Named by their place, for lengths differ from process to process with the objects' UIDs.
        meta = after_meta(data)
        places = {str(n): n for n in (0, 1, 127, 128, 131, 132, 133, 140)}
        places |= {f"meta{step:+d}": meta + step for step in (-1, 0, 1, 7, 8, 12, 60, 200, 400)}
        places |= {f"{part}of7": len(data) * part // 7 for part in range(1, 7)}
        places["end-200"] = len(data) - 200
        found |= {f"{name}-{place}": data[:length] for place, length in places.items()}
    return found
