"""What callers send: drawn lesions, and all that must be refused."""

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from struct import pack
from typing import Final

import cv2
import numpy as np
from PIL import Image

from app.domain.heatmaps import encode_png
from app.domain.images import RgbImage
from tests.pictures import sharp_lesion

BOUNDARY: Final = "fault-5b1c"
_TINTS: Final = (
    (0.7, 0.7, 0.7),
    (1.0, 1.0, 0.7),
    (0.7, 0.7, 0.85),
    (0.85, 0.7, 0.85),
    (1.0, 0.7, 0.85),
    (1.0, 0.85, 0.7),
    (0.85, 0.85, 0.85),
    (0.85, 0.7, 1.0),
)
"""Shares of red, green and blue; `Ledger.check_truths_differ` looks at what comes of them."""
NUM_LESIONS: Final = len(_TINTS)
_NO_HEATMAP: Final = "/predict?heatmap=false"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    Attributes:
        path: With its query.
        body: None for GET.
        content_type: Of the body.
        headers: Beside those.
        pictures: Names of the pictures inside, by place; None for one that is none.
        anew: Whether by a connection of its own.
    """

    path: str = _NO_HEATMAP
    body: bytes | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[str | None, ...] = ()
    anew: bool = False

    @property
    def predicts(self) -> bool:
        """Whether a 200 is an answer about an image."""
        return self.path.startswith("/predict")


@cache
def lesion(number: int) -> bytes:
    """One of some drawn lesions, as PNG; each of another tint, so that answers differ."""
    return encode_png(_pixels(number, 320, 240))


@cache
def jpeg(number: int, width: int = 600, height: int = 450) -> bytes:
    """The same as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(_pixels(number, width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _pixels(number: int, width: int, height: int) -> RgbImage:
    drawn = sharp_lesion(600, 450) * np.array(_TINTS[number % NUM_LESIONS])
    return np.asarray(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def form(*images: bytes) -> bytes:
    """A multipart body of files in fields `image`."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    return b"".join(head + image + b"\r\n" for image in images) + f"--{BOUNDARY}--\r\n".encode()


FORM: Final = f"multipart/form-data; boundary={BOUNDARY}"


def valid(number: int, *, heatmap: bool = False) -> Ask:
    """A picture to answer, as a form or as the body itself."""
    path = "/predict?overlay_format=jpeg" if heatmap else _NO_HEATMAP
    name = f"lesion {number % NUM_LESIONS}"
    if number % 2:
        return Ask(path, jpeg(number % NUM_LESIONS), "image/jpeg", {}, (name,))
    return Ask(path, form(lesion(number % NUM_LESIONS)), FORM, {}, (name,))


def large(_number: int) -> Ask:
    """A picture of twelve million pixels, as a form that is kept in a file while it comes."""
    body = form(jpeg(0, 4000, 3000))
    return Ask(_NO_HEATMAP, body, FORM, {}, ("large",))


@cache
def _huge() -> bytes:
    pixels = cv2.resize(_pixels(0, 500, 450), (5000, 4500), interpolation=cv2.INTER_NEAREST)
    return encode_png(np.asarray(pixels, np.uint8))


def huge(_number: int) -> Ask:
    """A picture of 22.5 million pixels, whose decoding takes twice 67 megabytes."""
    return Ask(_NO_HEATMAP, _huge(), "image/png", {}, ("huge",))


def batch(number: int) -> Ask:
    """Two pictures to answer, and one between them that is none."""
    first, second = number % NUM_LESIONS // 2 * 2, (number + 2) % NUM_LESIONS // 2 * 2
    body = form(lesion(first), b"no picture", lesion(second))
    names = (f"lesion {first}", None, f"lesion {second}")
    return Ask("/predict/batch?heatmap=false", body, FORM, {}, names)


def refused(number: int) -> Ask:
    """Something that must be refused, of a dozen kinds."""
    png = lesion(number % NUM_LESIONS)
    kinds = (
        Ask(body=png[: len(png) // 2], content_type="image/png"),
        Ask(body=b"", content_type="image/png"),
        Ask(body=b"no picture" * 50, content_type="application/octet-stream"),
        Ask(body=png, content_type="text/plain"),
        Ask(body=b'{"image": 1}', content_type="application/json"),
        Ask(body=png, content_type="multipart/form-data"),
        Ask(body=form()[:-6], content_type=FORM),
        Ask("/predict?model=unknown", png, "image/png"),
        Ask("/predict?heatmap=perhaps", png, "image/png"),
        Ask("/predict?frame=2", png, "image/png"),
        Ask(body=png, content_type="image/png", headers={"x-request-timeout": "soon"}),
        Ask("/predict/batch", png, "image/png"),
        Ask("/models/unknown"),
        Ask("/nowhere"),
    )
    return kinds[number % len(kinds)]


def oversize(max_bytes: int) -> Ask:
    """More bytes than an image may have."""
    return Ask(body=bytes(max_bytes * 2), content_type="application/octet-stream")


def harmless(number: int) -> Ask:
    """Something that operators and pages ask for."""
    return Ask(("/health/live", "/models", "/openapi.json", "/metrics")[number % 4])


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small files that unfold to hundreds of megabytes, say that they do, or take long to read.

    Returns:
        By what they are: their bytes, and how a request with them must end.
    """
    too_many = "422 image-too-many-pixels"
    return {
        "PNG, 30000 x 30000": (_png(30_000, 30_000, rows=200), too_many),
        # Allowed by its header; what is beyond that is not unfolded.
        "PNG, 4000 x 4000, four times its rows": (_png(4_000, 4_000, rows=16_000), "200"),
        "JPEG, 10000 x 7000": (_jpeg_of_one_colour(10_000, 7_000), too_many),
        "BMP, 65535 x 65535": (_bmp(65_535), too_many),
        "TIFF, 60000 x 60000": (_tiff(60_000), too_many),
        # No more strips are read than the picture has.
        "TIFF, two strips listed 500 times": (repeated_strips(4_992, 1, 500), "200"),
        "TIFF, two strips listed 500000 times": (repeated_strips(224, 8, 500_000), "200"),
        # libtiff would copy each, and Pillow make an object of each fraction: seconds.
        "TIFF, 4 MB of values for each of 500 tags": (
            shared_values(4_000_000, 7, 500, behind=4_000_000),
            "422 image-corrupt",
        ),
        "TIFF, a tag of a million fractions": (
            shared_values(1_000_000, 5, 1, behind=8_000_000),
            "422 image-corrupt",
        ),
        "BMP of run lengths, 5000 x 5000": (run_length_bmp(5_000, 4), "415 image-format"),
    }


def _png(width: int, height: int, rows: int) -> bytes:
    packed = zlib.compressobj(1)
    data = b"".join(packed.compress(bytes(1 + 3 * width)) for _ in range(rows)) + packed.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + name + content + pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _jpeg_of_one_colour(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (150, 120, 110)).save(buffer, "JPEG")
    return buffer.getvalue()


def _bmp(side: int) -> bytes:
    return b"BM" + pack("<IHHIIiiHH", 0, 0, 0, 54, 40, side, side, 1, 24) + bytes(24)


def run_length_bmp(side: int, bits: int) -> bytes:
    """A BMP of RLE4 or RLE8: a run of seven pixels and an end in each row."""
    palette = b"".join(bytes([level, 0, level, 0]) for level in range(1 << bits))
    offset = 54 + len(palette)
    head = pack("<IHHIIiiHHI", 0, 0, 0, offset, 40, side, side, 1, bits, {8: 1, 4: 2}[bits])
    return b"BM" + head + bytes(20) + palette + b"\1\7\0\0" * side


def repeated_strips(side: int, bits: int, num_strips: int) -> bytes:
    """A grey TIFF without compression, of two strips, that lists the first as often as wanted."""
    strip = bytes(side * side // 2 * bits // 8)
    offsets = pack("<I", 8) * num_strips
    return tiff(
        {
            256: (4, pack("<I", side)),
            257: (4, pack("<I", side)),
            258: (3, pack("<H", bits)),
            259: (3, pack("<H", 1)),
            262: (3, pack("<H", 1)),
            273: (4, offsets),
            278: (4, pack("<I", side // 2)),
            279: (4, pack("<I", len(strip)) * num_strips),
        },
        strip,
    )


_TIFF_BYTES: Final = {3: 2, 4: 4, 5: 8}
"""Of a SHORT, a LONG and a RATIONAL."""


def tiff(tags: Mapping[int, tuple[int, bytes]], pixels: bytes) -> bytes:
    """A little-endian TIFF.

    Args:
        tags: Their types, as TIFF numbers them, and their values' bytes.
        pixels: What comes at byte 8.
    """
    pixels += bytes(len(pixels) % 2)
    directory = 8 + len(pixels)
    behind = directory + 2 + 12 * len(tags) + 4
    entries = values = b""
    for tag, (kind, value) in sorted(tags.items()):
        entries += pack("<HHI", tag, kind, len(value) // _TIFF_BYTES[kind])
        if len(value) <= 4:
            entries += value.ljust(4, b"\0")
        else:
            entries += pack("<I", behind + len(values))
            values += value
    head = b"II*\0" + pack("<I", directory) + pixels
    return head + pack("<H", len(tags)) + entries + bytes(4) + values


def shared_values(
    num_values: int, kind: int, num_tags: int, *, behind: int = 0, is_big: bool = False
) -> bytes:
    """A grey TIFF of 224 x 224 pixels with further tags, whose values all begin at its first pixel.

    Args:
        num_values: Of each of these tags.
        kind: Of these values, as TIFF numbers them.
        num_tags: How many.
        behind: Bytes after all that.
        is_big: Write a BigTIFF.
    """
    word, head = ("Q", 16) if is_big else ("I", 8)
    pixels = b"\x55" * 224 * 224
    size = {256: 224, 257: 224, 258: 8, 262: 1, 273: head, 278: 224, 279: len(pixels)}
    tags = [(tag, 4, 1, value) for tag, value in size.items()]
    tags += [(50_000 + number, kind, num_values, head) for number in range(num_tags)]
    entries = b"".join(pack(f"<HH{word}{word}", *tag) for tag in tags)
    start = b"II+\0" + pack("<HH", 8, 0) if is_big else b"II*\0"
    directory = pack("<Q" if is_big else "<H", len(tags)) + entries + pack(f"<{word}", 0)
    return start + pack(f"<{word}", head + len(pixels)) + pixels + directory + bytes(behind)


def _tiff(side: int) -> bytes:
    tags = ((256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 32773), (262, 3, 1), (273, 4, 8))
    entries = b"".join(pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + pack("<I", 8) + pack("<H", len(tags)) + entries + pack("<I", 0)
