"""Large uploads are decoded no larger than needed, and answer as if they had been."""

import cv2
import numpy as np
import pytest
from PIL import Image

from app.domain.images import RgbImage, decode_image, to_model_input
from app.domain.uploads import read_upload
from tests.app.domain.test_images import encode
from training.synthetic import draw_lesion

LARGE = (3000, 2001)


@pytest.fixture(scope="module")
def large_picture() -> RgbImage:
    noise = np.random.default_rng(0).normal(0, 6, (LARGE[1], LARGE[0], 1))
    return np.clip(draw_lesion(3, 4, *LARGE) + noise, 0, 255).astype(np.uint8)


def test_a_large_jpeg_is_read_at_a_reduced_scale_and_gives_the_same_input(
    large_picture: RgbImage,
) -> None:
    data = encode(large_picture, "RGB", "JPEG", quality=90)
    plain = to_model_input(decode_image(data).pixels).astype(int)
    reduced = decode_image(data, enough_side=1024)
    assert reduced.pixels.shape == (1001, 1500, 3)
    upload = read_upload(data)
    difference = np.abs(upload.model_input - plain)
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99.9) <= 8  # sharp edges of colour, of which JPEG keeps half
    assert (upload.width, upload.height) == LARGE
    assert upload.picture.shape == (683, 1024, 3)


def test_what_is_no_jpeg_is_read_whole_and_only_its_picture_is_shrunk(
    large_picture: RgbImage,
) -> None:
    upload = read_upload(encode(large_picture, "RGB", "BMP"), max_picture_side=500)
    np.testing.assert_array_equal(upload.model_input, to_model_input(large_picture))
    assert upload.picture.shape == (334, 500, 3)
    expected = cv2.resize(large_picture, (500, 334), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(upload.picture, expected)


def test_a_picture_that_is_small_enough_stays_as_it_is() -> None:
    data = encode(draw_lesion(3, 4, 160, 120), "RGB", "JPEG")
    upload = read_upload(data)
    np.testing.assert_array_equal(upload.picture, decode_image(data).pixels)
    np.testing.assert_array_equal(upload.model_input, to_model_input(upload.picture))


@pytest.mark.parametrize(("orientation", "size"), [(3, LARGE), (6, LARGE[::-1]), (8, LARGE[::-1])])
def test_the_size_is_the_files_own_and_upright(
    large_picture: RgbImage, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upload = read_upload(encode(large_picture, "RGB", "JPEG", exif=exif))
    assert (upload.width, upload.height) == size
    rows, columns = upload.picture.shape[:2]
    assert (columns > rows) == (size[0] > size[1])


def test_a_long_picture_keeps_enough_of_its_short_side() -> None:
    strip = np.repeat(draw_lesion(3, 4, 600, 600), 6, axis=1)
    assert decode_image(encode(strip, "RGB", "JPEG"), enough_side=400).pixels.shape[0] == 600
    upload = read_upload(encode(strip, "RGB", "JPEG"), max_picture_side=400)
    assert upload.picture.shape == (67, 400, 3)
