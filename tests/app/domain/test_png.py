"""How many chunks a PNG may have."""

import io
import zlib
from struct import pack

import pytest
from PIL import Image

from app.domain.errors import ImageCorruptError
from app.domain.images import decode_image
from app.domain.png import MAX_PNG_CHUNKS, check_png
from training.synthetic import draw_lesion

PICTURE = draw_lesion(3, 4, 160, 120)
HEADER_BYTES = 8 + 25


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))


def with_chunks(chunks: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "PNG")
    png = buffer.getvalue()
    return png[:HEADER_BYTES] + chunks + png[HEADER_BYTES:]


def profile(num_bytes: int) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(num_bytes)))


@pytest.mark.parametrize(
    "chunks",
    [b"", profile(1000), chunk(b"prVt") * 1000, chunk(b"tEXt", b"iCCP\0IEND") * 100],
    ids=["none", "a profile", "private ones", "texts"],
)
def test_what_encoders_write_is_read(chunks: bytes) -> None:
    assert (decode_image(with_chunks(chunks)).pixels == PICTURE).all()


@pytest.mark.parametrize(
    "chunks",
    [chunk(b"prVt") * MAX_PNG_CHUNKS, chunk(b"IDAT") * MAX_PNG_CHUNKS, profile(100_000) * 2],
    ids=["private ones", "empty pixels", "profiles"],
)
def test_many_chunks_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, chunks: bytes
) -> None:
    monkeypatch.setattr("app.domain.images.Image.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageCorruptError, match="chunks or one colour profile"):
        decode_image(with_chunks(chunks))


def test_what_is_behind_the_end_does_not_count() -> None:
    check_png(with_chunks(b"") + profile(10) * 2 + chunk(b"prVt") * MAX_PNG_CHUNKS)
