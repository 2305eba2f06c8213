"""What a JPEG may repeat."""

import io

import pytest
from PIL import Image

from app.domain.errors import ImageCorruptError
from app.domain.images import decode_image
from app.domain.jpeg import MAX_JPEG_EXIF_SEGMENTS, MAX_JPEG_SCANS
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


def test_many_segments_of_exif_are_refused_before_pillow_joins_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(progressive=False)
    segment = b"\xff\xe1\0\x0aExif\0\0II"
    decode_image(data[:2] + segment * MAX_JPEG_EXIF_SEGMENTS + data[2:])
    monkeypatch.setattr("app.domain.images.Image.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageCorruptError, match="EXIF segments"):
        decode_image(data[:2] + segment * (MAX_JPEG_EXIF_SEGMENTS + 1) + data[2:])
