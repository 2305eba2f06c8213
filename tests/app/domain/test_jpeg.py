"""What a JPEG may repeat, and how much it may have before its pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from app.domain.errors import ImageCorruptError
from app.domain.images import decode_image
from app.domain.jpeg import MAX_JPEG_EXIF_SEGMENTS, MAX_JPEG_SCANS, MAX_JPEG_STEPS
from training.synthetic import draw_lesion

WIDTH, HEIGHT = 160, 120


def encode(*, progressive: bool) -> bytes:
    buffer = io.BytesIO()
    picture = draw_lesion(3, 4, WIDTH, HEIGHT)
    Image.fromarray(picture).save(buffer, "JPEG", progressive=progressive)
    return buffer.getvalue()


def test_a_progressive_jpeg_with_many_scans_is_refused() -> None:
    data = encode(progressive=True)
    decode_image(data)
    start = data.rindex(b"\xff\xda")
    scan, end = data[start:-2], data[-2:]
    with pytest.raises(ImageCorruptError, match="scans"):
        decode_image(data[:start] + scan * MAX_JPEG_SCANS + end)


def test_scans_are_counted_up_to_the_end_of_the_image() -> None:
    data = encode(progressive=True)
    film = np.random.default_rng(1).bytes(10_000_000)
    assert film.count(b"\xff\xda") > MAX_JPEG_SCANS
    np.testing.assert_array_equal(decode_image(data + film).pixels, decode_image(data).pixels)
    # What looks like an end inside of a comment is none.
    comment = b"\xff\xfe\0\x06\xff\xd9\xff\xd9"
    start = data.rindex(b"\xff\xda")
    many = data[start:-2] * MAX_JPEG_SCANS
    with pytest.raises(ImageCorruptError, match="scans"):
        decode_image(data[:start] + comment + many + data[-2:])


def test_many_segments_between_scans_are_refused() -> None:
    data = encode(progressive=True)
    start = data.rindex(b"\xff\xda")
    comment = b"\xff\xfe\0\x02"
    decode_image(data[:start] + comment * 100 + data[start:])
    with pytest.raises(ImageCorruptError, match="segments"):
        decode_image(data[:start] + comment * MAX_JPEG_STEPS + data[start:])


def test_many_segments_of_exif_are_refused_before_pillow_joins_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(progressive=False)
    segment = b"\xff\xe1\0\x0aExif\0\0II"
    decode_image(data[:2] + segment * MAX_JPEG_EXIF_SEGMENTS + data[2:])
    monkeypatch.setattr("app.domain.images.Image.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageCorruptError, match="EXIF segments"):
        decode_image(data[:2] + segment * (MAX_JPEG_EXIF_SEGMENTS + 1) + data[2:])


FIRST = 20
"""Behind the start and JFIF's segment."""

SEGMENTS = {
    "empty segments": b"\xff\xe5\x00\x02",
    "lengths below two": b"\xff\xfe\x00\x00",
    "bare markers": b"\xff\xd0",
    "escaped bytes": b"\xff\x00",
    "bytes that fill up": b"\xff",
    "bytes between segments": b"\x00",
}


@pytest.mark.parametrize("segment", SEGMENTS.values(), ids=SEGMENTS)
def test_many_segments_are_refused_before_pillow_walks_over_them(
    monkeypatch: pytest.MonkeyPatch, segment: bytes
) -> None:
    data = encode(progressive=False)
    expected = decode_image(data).pixels
    few = decode_image(data[:FIRST] + segment * 300 + data[FIRST:])
    assert (few.pixels == expected).all()
    monkeypatch.setattr("app.domain.images.Image.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageCorruptError, match="segments and bytes between them"):
        decode_image(data[:FIRST] + segment * (MAX_JPEG_STEPS + 1) + data[FIRST:])


def test_what_a_segment_holds_is_no_step() -> None:
    data = encode(progressive=False)
    length = (60_000).to_bytes(2, "big")
    profile = (b"\xff\xe2" + length + b"\xff\xd0" * 29_999) * 255
    assert decode_image(data[:2] + profile + data[2:]).width == WIDTH
