"""Decoding and preprocessing of what callers upload."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from app.domain.errors import (
    ImageCorruptError,
    ImageEmptyError,
    ImageFormatError,
    ImageTooManyBytesError,
    ImageTooManyPixelsError,
    ImageTooSmallError,
)
from app.domain.heatmaps import encode_png
from app.domain.images import (
    MAX_EXIF_BYTES,
    ImageLimits,
    RgbImage,
    decode_image,
    to_model_input,
)
from tests.faults.pictures import run_length_bmp
from training.synthetic import draw_lesion

WIDTH, HEIGHT = 160, 120


@pytest.mark.parametrize("place", ["_to_rgb", "Image.open"])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError("out of memory when reading image file"),  # Pillow's decoders, status -9
        cv2.error("(-4:Insufficient memory) Failed to allocate 75000000 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=repr,
)
def test_a_good_picture_is_not_called_damaged_for_want_of_memory(
    picture: RgbImage, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    png = encode_png(picture)
    monkeypatch.setattr(f"app.domain.images.{place}", fail)
    with pytest.raises(type(error)):
        decode_image(png)


def test_a_decoder_that_says_so_is_believed(
    picture: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Decoder(ImageFile.PyDecoder):
        def decode(self, _buffer: object) -> tuple[int, int]:
            return -1, -9  # ImagingError codes: IMAGING_CODEC_MEMORY

    bmp = encode(picture, "RGB", "BMP")
    monkeypatch.setitem(Image.DECODERS, "raw", Decoder)
    with pytest.raises(OSError, match="out of memory"):
        decode_image(bmp)


@pytest.fixture
def picture() -> RgbImage:
    return draw_lesion(3, 4, WIDTH, HEIGHT)


def encode(pixels: RgbImage, mode: str, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_give_the_very_pixels(picture: RgbImage, file_format: str) -> None:
    decoded = decode_image(encode(picture, "RGB", file_format))
    np.testing.assert_array_equal(decoded.pixels, picture)
    assert decoded.media_type == f"image/{file_format.lower()}"
    assert (decoded.width, decoded.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("mode", "file_format", "options", "tolerance"),
    [
        ("RGB", "JPEG", {"quality": 95}, 6),
        ("RGB", "WEBP", {"lossless": True}, 0.01),
        ("P", "PNG", {}, 25),
        ("RGBA", "PNG", {}, 0.01),
        ("CMYK", "JPEG", {"quality": 95}, 8),
        ("CMYK", "TIFF", {}, 2),
        ("YCbCr", "JPEG", {"quality": 95}, 8),
    ],
)
def test_other_modes_keep_the_colours(
    picture: RgbImage, mode: str, file_format: str, options: dict[str, object], tolerance: float
) -> None:
    decoded = decode_image(encode(picture, mode, file_format, **options)).pixels
    assert decoded.shape == picture.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - picture).mean() < tolerance


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits_keep_the_high_byte(picture: RgbImage, extension: str) -> None:
    wide = picture.astype(np.uint16) * 256 + 17
    _, colour = cv2.imencode(extension, wide[..., ::-1])
    np.testing.assert_array_equal(decode_image(colour.tobytes()).pixels, picture)
    _, grey = cv2.imencode(extension, wide[..., 0])
    expected = np.repeat(picture[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decode_image(grey.tobytes()).pixels, expected)


def test_grey_becomes_three_equal_channels(picture: RgbImage) -> None:
    decoded = decode_image(encode(picture, "L", "PNG")).pixels
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 1] == decoded[..., 2]).all()
    assert decoded.std() > 1


def test_transparent_pixels_become_black(picture: RgbImage) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, :40] = 0
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(buffer, "PNG")
    decoded = decode_image(buffer.getvalue()).pixels
    assert (decoded[:, :40] == 0).all()
    np.testing.assert_array_equal(decoded[:, 40:], picture[:, 40:])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture: RgbImage, file_format: str, orientation: int) -> None:
    undo: dict[int, Callable[[RgbImage], RgbImage]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](picture))
    lossy: dict[str, dict[str, object]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    decoded = decode_image(
        encode(stored, "RGB", file_format, exif=exif, **lossy.get(file_format, {}))
    )
    assert (decoded.width, decoded.height) == (WIDTH, HEIGHT)
    assert decoded.pixels.shape == picture.shape
    assert np.abs(decoded.pixels.astype(int) - picture).mean() < (6 if file_format == "JPEG" else 1)


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_of_unusual_types_does_not_spoil_a_picture(
    picture: RgbImage, orientation: int
) -> None:
    stored = np.ascontiguousarray(np.rot90(picture, 1)) if orientation == 6 else picture
    # Two entries: Orientation, and XResolution as text.
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(
        "<HHI4s", 0x011A, 2, 4, b"300\0"
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    decoded = decode_image(encode(stored, "RGB", "JPEG", exif=exif, quality=95))
    assert decoded.pixels.shape == picture.shape
    assert np.abs(decoded.pixels.astype(int) - picture).mean() < 6


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_that_is_none_is_passed_over(picture: RgbImage, file_format: str) -> None:
    exif = b"Exif\0\0" + bytes(40)
    decoded = decode_image(encode(picture, "RGB", file_format, exif=exif))
    assert decoded.pixels.shape == picture.shape


def test_the_transparent_grey_of_a_16_bit_png_lies_over_black() -> None:
    values = np.full((HEIGHT, WIDTH), 0x8001, np.uint16)
    values[:, :40] = 0x7F80
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", transparency=0x7F80)
    pixels = decode_image(buffer.getvalue()).pixels
    assert (pixels[:, :40] == 0).all()
    assert (pixels[:, 40:] == 0x80).all()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_long_exif_is_refused(picture: RgbImage, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x927C] = 6, bytes(MAX_EXIF_BYTES - 1000)
    assert decode_image(encode(picture, "RGB", file_format, exif=exif)).width == HEIGHT
    exif[0x927C] = bytes(MAX_EXIF_BYTES)
    with pytest.raises(ImageCorruptError, match="EXIF"):
        decode_image(encode(picture, "RGB", file_format, exif=exif))


def test_phone_jpeg_with_appended_pictures_gives_the_first(picture: RgbImage) -> None:
    buffer = io.BytesIO()
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=95)
    decoded = decode_image(buffer.getvalue())
    assert decoded.media_type == "image/jpeg"
    assert np.abs(decoded.pixels.astype(int) - picture).mean() < 6


def test_empty_is_refused() -> None:
    with pytest.raises(ImageEmptyError, match="0 bytes"):
        decode_image(b"")


def test_too_many_bytes_are_refused(picture: RgbImage) -> None:
    data = encode(picture, "RGB", "BMP")
    with pytest.raises(ImageTooManyBytesError, match=r"at most 1,000 "):
        decode_image(data, ImageLimits(max_bytes=1000))
    decode_image(data, ImageLimits(max_bytes=len(data)))


def test_too_small_is_refused(picture: RgbImage) -> None:
    data = encode(picture, "RGB", "PNG")
    with pytest.raises(ImageTooSmallError, match="160 x 120"):
        decode_image(data, ImageLimits(min_side_pixels=HEIGHT + 1))
    decode_image(data, ImageLimits(min_side_pixels=HEIGHT))


def test_pixels_are_counted_before_decoding(picture: RgbImage) -> None:
    # The header alone, with no pixel behind it: decoding would fail in another way.
    data = encode(picture, "RGB", "PNG")[:33] + b"\0\0\0\0IDAT"
    with pytest.raises(ImageTooManyPixelsError, match="160 x 120"):
        decode_image(data, ImageLimits(max_pixels=WIDTH * HEIGHT - 1))


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bomb_is_refused(width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(ImageTooManyPixelsError):
        decode_image(data)


@pytest.mark.parametrize(
    "data",
    [b"hello, this is no image", b"%PDF-1.7\n", b"GIF89a" + bytes(100), b"\0" * 1000],
    ids=["text", "pdf", "gif", "zeros"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageFormatError, match="JPEG, PNG, TIFF, BMP or WebP"):
        decode_image(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_files_are_refused(picture: RgbImage, file_format: str, share: float) -> None:
    data = encode(picture, "RGB", file_format)
    with pytest.raises((ImageCorruptError, ImageFormatError)):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("file_format", ["TIFF", "WEBP", "PNG"])
def test_several_pictures_in_one_file_are_refused(picture: RgbImage, file_format: str) -> None:
    buffer = io.BytesIO()
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    first.save(buffer, file_format, save_all=True, append_images=[second])
    with pytest.raises(ImageFormatError, match="several pictures"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(dtype: type[np.generic]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, dtype)).save(buffer, "TIFF")
    with pytest.raises(ImageFormatError, match="8 or 16 bits"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_of_run_lengths_is_refused(bits: int) -> None:
    with pytest.raises(ImageFormatError, match="without RLE compression"):
        decode_image(run_length_bmp(HEIGHT, bits))


def test_every_flipped_byte_gives_an_answer_or_a_refusal(picture: RgbImage) -> None:
    data = bytearray(encode(picture, "RGB", "PNG"))
    random = np.random.default_rng(0)
    refusals = 0
    for position in random.integers(0, len(data), 300):
        damaged = (
            bytes(data[:position]) + bytes([data[position] ^ 0x55]) + bytes(data[position + 1 :])
        )
        try:
            decode_image(damaged)
        except (ImageCorruptError, ImageFormatError, ImageTooManyPixelsError, ImageTooSmallError):
            refusals += 1
    assert refusals > 250  # PNG carries checksums: almost every damage is seen


def test_model_input_squeezes_the_whole_picture() -> None:
    pixels = np.zeros((448, 600, 3), np.uint8)
    pixels[:, 300:] = 200
    model_input = to_model_input(pixels)
    assert model_input.shape == (224, 224, 3)
    assert model_input.dtype == np.uint8
    assert (model_input[:, :112] == 0).all()
    assert (model_input[:, 112:] == 200).all()


def test_model_input_averages_areas() -> None:
    checkerboard = (np.indices((448, 448)).sum(axis=0) % 2 * 200).astype(np.uint8)
    model_input = to_model_input(np.repeat(checkerboard[..., None], 3, axis=2))
    assert (model_input == 100).all()


def test_model_input_averages_the_long_side_of_a_flat_picture() -> None:
    stripes = np.zeros((200, 2240, 3), np.uint8)
    stripes[:, ::2] = 200
    assert to_model_input(stripes).std() < 1


def test_model_input_leaves_224_alone() -> None:
    square = draw_lesion(1, 2, 224, 224)
    np.testing.assert_array_equal(to_model_input(square), square)


@pytest.mark.parametrize("wrong", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_model_input_names_the_expected_array(wrong: RgbImage) -> None:
    with pytest.raises(ValueError, match=r"\(height, width, 3\) uint8"):
        to_model_input(wrong)
