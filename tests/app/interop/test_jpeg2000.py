"""JPEG 2000 streams as encoders and attackers write them."""

import io
from struct import pack
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.domain.errors import ImageCorruptError, ImageFormatError
from app.interop.jpeg2000 import MAX_TILE_PARTS, check_jpeg2000
from tests.dicom_photographs import to_jpeg2000
from tests.hostile_dicom import START_OF_TILE, jpeg2000_header
from training.synthetic import draw_lesion

PIXELS = draw_lesion(3, 4, 320, 240)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (64, 64)},
        {"precinct_size": (128, 128)},
        {"codeblock_size": (16, 16)},
        {"irreversible": True, "quality_mode": "rates", "quality_layers": [80, 40, 20, 10]},
        {"num_resolutions": 1},
        {"progression": "RPCL"},
        {"plt": True, "comment": b"\xff\x90 of an archive"},
    ],
    ids=str,
)
def test_what_encoders_write_is_read(options: dict[str, Any]) -> None:
    stream = to_jpeg2000(PIXELS, **options)
    check_jpeg2000(stream)
    with Image.open(io.BytesIO(stream)) as image:
        assert np.asarray(image).shape == PIXELS.shape


@pytest.mark.parametrize(
    "stream",
    [
        jpeg2000_header(5000, 5000),
        jpeg2000_header(5000, 5000, block=4, tile=512),
        jpeg2000_header(5000, 5000, precincts="778899aabbcc"),
        jpeg2000_header(5000, 5000, layers=20),
    ],
    ids=["plain", "tiles", "precincts", "layers"],
)
def test_the_largest_of_honest_pictures_are_let_through(stream: bytes) -> None:
    check_jpeg2000(stream)


@pytest.mark.parametrize(
    "stream",
    [
        jpeg2000_header(500, 500, precincts="111111111111"),
        jpeg2000_header(5000, 5000, block=0),
        jpeg2000_header(5000, 5000, precincts="00" * 6),
        jpeg2000_header(5000, 5000, layers=65535),
        jpeg2000_header(5000, 5000, tile=20),
        jpeg2000_header(5000, 5000, tile=160, block=1),
        jpeg2000_header(2**32 - 1, 2**32 - 1),
    ],
    ids=["precincts", "blocks", "precincts of a pixel", "layers", "tiles", "both", "size"],
)
def test_what_would_take_gigabytes_is_refused(stream: bytes) -> None:
    with pytest.raises(ImageCorruptError, match="accepted. Export the picture"):
        check_jpeg2000(stream)


def test_a_tile_with_a_style_of_its_own_is_refused() -> None:
    plain = jpeg2000_header(500, 500)
    style = b"\xff\x52" + pack(">HBBHB5B", 12, 0, 0, 1, 0, 5, 0, 0, 0, 1)
    with pytest.raises(ImageFormatError, match="tiles with coding styles"):
        check_jpeg2000(plain.replace(b"\xff\x93", style + b"\xff\x93"))
    second = START_OF_TILE + bytes(8) + style + b"\xff\x93"
    with pytest.raises(ImageFormatError, match="tiles with coding styles"):
        check_jpeg2000(plain + second)


def test_a_component_with_a_style_of_its_own_is_refused() -> None:
    own = b"\xff\x53" + pack(">HBB5B", 9, 0, 0, 5, 0, 0, 0, 1)
    with pytest.raises(ImageFormatError, match="one for each component"):
        check_jpeg2000(jpeg2000_header(500, 500).replace(START_OF_TILE, own + START_OF_TILE))


@pytest.mark.parametrize(
    "stream",
    [
        jpeg2000_header(500, 500)[:20],
        jpeg2000_header(500, 500)[:80],
        jpeg2000_header(500, 500, tile=0),
        jpeg2000_header(500, 500, precincts="77"),
        jpeg2000_header(500, 500).replace(b"\xff\x5c", b"\xff\x70"),
        jpeg2000_header(500, 500).replace(b"\xff\x5c", b"\xff\x52"),
        jpeg2000_header(500, 500) + (START_OF_TILE + b"\xff\x93") * (MAX_TILE_PARTS + 1),
    ],
    ids=["size cut", "style cut", "no tile", "few precincts", "unknown", "two styles", "parts"],
)
def test_a_damaged_header_is_refused(stream: bytes) -> None:
    with pytest.raises(ImageCorruptError, match="The JPEG 2000 stream"):
        check_jpeg2000(stream)


def test_a_file_format_around_it_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG2000")
    with pytest.raises(ImageCorruptError, match="without a file format"):
        check_jpeg2000(buffer.getvalue())
