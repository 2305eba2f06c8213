"""TIFFs as cameras, scanners and attackers write them."""

import io
from struct import pack

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from app.domain.errors import ImageCorruptError, ImageFormatError
from app.domain.images import ImageLimits, RgbImage, decode_image
from tests.faults.pictures import repeated_strips, shared_values, tiff
from training.synthetic import draw_lesion

WIDTH, HEIGHT = 160, 120


@pytest.fixture
def picture() -> RgbImage:
    return draw_lesion(3, 4, WIDTH, HEIGHT)


def short(*values: int) -> tuple[int, bytes]:
    return 3, pack(f"<{len(values)}H", *values)


def long(*values: int) -> tuple[int, bytes]:
    return 4, pack(f"<{len(values)}I", *values)


def grey(bits: int, pixels: bytes, **tags: tuple[int, bytes]) -> bytes:
    """One strip without compression; `tags` are t262 and so on, by their numbers."""
    given = {int(name[1:]): value for name, value in tags.items()}
    strip = {273: long(8), 278: long(HEIGHT), 279: long(len(pixels))}
    size = {256: long(WIDTH), 257: long(HEIGHT)}
    kind = {258: short(bits), 259: short(1), 262: short(1)}
    return tiff({**size, **kind, **strip, **given}, pixels)


@pytest.mark.parametrize("num_strips", [2, 500, 100_000])
def test_a_strip_that_is_listed_again_is_not_read_again(num_strips: int) -> None:
    data = repeated_strips(224, 8, num_strips)
    with Image.open(io.BytesIO(data)) as image:
        assert [tile.codec_name for tile in image.tile] == ["libtiff"]
    assert decode_image(data).pixels.shape == (224, 224, 3)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_modes_keep_the_very_pixels(picture: RgbImage, mode: str, compression: str) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(picture).convert("P" if mode == "PA" else mode).convert(mode)
    image.save(buffer, "TIFF", compression=compression)
    difference = decode_image(buffer.getvalue()).pixels.astype(int) - image.convert("RGB")
    # libtiff's own arithmetic differs from Pillow's by one level.
    assert np.abs(difference).max() <= (mode == "YCbCr")


def test_tiles_keep_the_very_pixels(picture: RgbImage) -> None:
    side = 64
    padded = np.zeros((2 * side, 3 * side, 3), np.uint8)
    padded[:HEIGHT, :WIDTH] = picture
    tiles = padded.reshape(2, side, 3, side, 3).swapaxes(1, 2).reshape(6, -1)
    data = tiff(
        {
            256: long(WIDTH),
            257: long(HEIGHT),
            258: short(8, 8, 8),
            262: short(2),
            277: short(3),
            322: long(side),
            323: long(side),
            324: long(*(8 + place * tiles.shape[1] for place in range(6))),
            325: long(*[tiles.shape[1]] * 6),
        },
        tiles.tobytes(),
    )
    np.testing.assert_array_equal(decode_image(data).pixels, picture)
    with pytest.raises(ImageCorruptError, match="64 x 64"):
        decode_image(tile_of(side), ImageLimits(max_pixels=side * side - 1, min_side_pixels=1))


def tile_of(side: int) -> bytes:
    """A picture of 32 x 32 in one tile."""
    sizes = {256: long(32), 257: long(32), 322: long(side), 323: long(side)}
    kind = {258: short(8), 259: short(1), 262: short(1)}
    return tiff({**sizes, **kind, 324: long(8), 325: long(side * side)}, bytes(side * side))


@pytest.mark.parametrize("depth", [8, 16])
def test_separate_planes_are_put_together(picture: RgbImage, depth: int) -> None:
    planes = np.moveaxis(picture, 2, 0).astype("<u2") << (depth - 8)
    pixels = planes.astype("<u2" if depth == 16 else np.uint8).tobytes()
    size = len(pixels) // 3
    offsets = {"t273": long(8, 8 + size, 8 + 2 * size), "t279": long(size, size, size)}
    kind = {"t258": short(*[depth] * 3), "t262": short(2), "t277": short(3), "t284": short(2)}
    data = grey(depth, pixels, **kind, **offsets)
    np.testing.assert_array_equal(decode_image(data).pixels, picture)


def test_ycbcr_of_few_colour_samples_keeps_its_colour() -> None:
    red, green, blue = 180, 110, 90
    y, cb, cr = Image.new("RGB", (1, 1), (red, green, blue)).convert("YCbCr").tobytes()
    pixels = bytes([y, y, y, y, cb, cr]) * (WIDTH * HEIGHT // 4)
    kind = {"t258": short(8, 8, 8), "t262": short(6), "t277": short(3), "t530": short(2, 2)}
    decoded = decode_image(grey(8, pixels, **kind)).pixels.astype(int)
    assert np.abs(decoded - (red, green, blue)).max() <= 2


@pytest.mark.parametrize(
    ("bits", "tags"),
    [
        (12, {}),
        (16, {"t262": short(0)}),  # white is zero
        (16, {"t339": short(2)}),  # signed
        (32, {"t339": short(2)}),
        (8, {"t258": short(8, 8), "t277": short(2), "t284": short(2), "t338": short(2)}),
    ],
    ids=["12 bits", "white is zero", "signed", "32 bits", "alpha apart"],
)
def test_what_would_come_out_wrong_is_refused(
    bits: int, tags: dict[str, tuple[int, bytes]]
) -> None:
    size = WIDTH * HEIGHT * bits // 8
    with pytest.raises(ImageFormatError, match="Export the picture as 8-bit RGB"):
        decode_image(grey(bits, b"\x55" * size * 2, **tags))
    if not tags:
        decode_image(grey(16, b"\x55" * WIDTH * HEIGHT * 2))


@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize(
    ("num_values", "kind", "num_tags"),
    [(224 * 224 // 2, 7, 2), (1000, 5, 1), (0, 5, 1)],
    ids=["as many bytes as the file", "as many fractions as allowed", "no value"],
)
def test_values_that_cost_little_are_read(
    num_values: int, kind: int, num_tags: int, is_big: bool
) -> None:
    data = shared_values(num_values, kind, num_tags, is_big=is_big)
    assert (decode_image(data).pixels == 0x55).all()


@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize(
    ("num_values", "kind", "num_tags"),
    [(224 * 224, 7, 300), (2**32 - 1, 12, 1), (1001, 5, 1), (1001, 10, 1)],
    ids=["in one place", "beyond the file", "fractions", "signed fractions"],
)
def test_values_that_cost_much_are_refused_before_they_are_read(
    num_values: int, kind: int, num_tags: int, is_big: bool
) -> None:
    with pytest.raises(ImageCorruptError, match="more values than the file has bytes"):
        decode_image(shared_values(num_values, kind, num_tags, is_big=is_big))


def test_a_million_numbers_of_one_tag_are_refused() -> None:
    data = shared_values(1_000_001, 3, 1, behind=2_000_002)
    with pytest.raises(ImageCorruptError, match="1,000,000 numbers"):
        decode_image(data)


@pytest.mark.parametrize(
    "data",
    [b"II*\0", b"II*\0" + pack("<I", 8) + pack("<H", 9), b"MM\0*" + b"\xff" * 8]
    + [b"II+\0" + pack("<HHQ", 8, 0, 2**64 - 1), b"II+\0" + pack("<HHQQ", 8, 0, 16, 2**64 - 1)],
    ids=["only the start", "too few tags", "far away", "further", "too many tags"],
)
def test_a_directory_that_is_not_in_the_file_is_refused(data: bytes) -> None:
    with pytest.raises(ImageCorruptError, match="directory is not in the file"):
        decode_image(data)


def test_another_byte_order_is_read(picture: RgbImage) -> None:
    buffer = io.BytesIO()
    head = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\0")
    Image.fromarray(picture).save(buffer, "TIFF", tiffinfo=head)
    assert (decode_image(buffer.getvalue()).pixels == picture).all()


@pytest.mark.parametrize("start", [b"MM*\0", b"II\0*", b"MM\0+", b"MMMM"])
def test_what_begins_as_a_tiff_and_is_none_is_refused(start: bytes) -> None:
    with pytest.raises(ImageFormatError, match="go on as none"):
        decode_image(start + shared_values(0, 5, 1)[4:])
