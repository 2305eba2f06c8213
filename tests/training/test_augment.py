"""The paper's distortions: within their ranges, about the centre, repeatable."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from training.augment import AugmentationRanges, augment, random_transforms

SIDE = 65
NONE = AugmentationRanges(0.0, 0.0, 0.0, 0.0, horizontal_flip=False)


def seed(value: int) -> tf.Tensor:
    return tf.constant([value, 0], tf.int32)


def dot(x: int, y: int, batch: int = 64) -> tf.Tensor:
    image = np.zeros((batch, SIDE, SIDE, 3), np.float32)
    image[:, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    return tf.constant(image)


def centres(images: tf.Tensor) -> np.ndarray:
    """Centre of mass of each image: (batch, x y)."""
    mass = images.numpy()[..., 0]
    total = mass.sum(axis=(1, 2))
    grid = np.arange(SIDE)
    return np.stack([(mass.sum(axis=1) @ grid) / total, (mass.sum(axis=2) @ grid) / total], axis=1)


def test_no_distortion_is_the_identity() -> None:
    images = tf.random.stateless_uniform([4, SIDE, SIDE, 3], [1, 2])
    np.testing.assert_allclose(augment(images, seed(1), NONE), images, atol=1e-6)


def test_same_seed_same_images() -> None:
    images = tf.random.stateless_uniform([4, SIDE, SIDE, 3], [1, 2])
    first = augment(images, seed(1), AugmentationRanges())
    np.testing.assert_array_equal(first, augment(images, seed(1), AugmentationRanges()))
    assert np.abs(first - augment(images, seed(2), AugmentationRanges())).mean() > 0.05


def test_rotation_keeps_the_distance_and_the_limit() -> None:
    ranges = AugmentationRanges(20.0, 0.0, 0.0, 0.0, horizontal_flip=False)
    offset = centres(augment(dot(52, 32), seed(3), ranges)) - 32
    angles = np.degrees(np.arctan2(offset[:, 1], offset[:, 0]))
    np.testing.assert_allclose(np.hypot(*offset.T), 20, atol=0.3)
    assert np.abs(angles).max() <= 20.5
    assert angles.min() < -15
    assert angles.max() > 15


def test_shift_stays_within_a_fifth_of_the_side() -> None:
    ranges = AugmentationRanges(0.0, 0.2, 0.0, 0.0, horizontal_flip=False)
    offset = centres(augment(dot(32, 32), seed(4), ranges)) - 32
    assert np.abs(offset).max() <= 0.2 * SIDE + 0.5
    assert (offset.min(axis=0) < -8).all()
    assert (offset.max(axis=0) > 8).all()


def test_flip_mirrors_about_half_of_the_images() -> None:
    ranges = AugmentationRanges(0.0, 0.0, 0.0, 0.0, horizontal_flip=True)
    offset = centres(augment(dot(50, 40), seed(5), ranges)) - 32
    np.testing.assert_allclose(np.abs(offset[:, 0]), 18, atol=1e-3)
    np.testing.assert_allclose(offset[:, 1], 8, atol=1e-3)
    assert 0.3 < (offset[:, 0] < 0).mean() < 0.7


def test_shear_and_zoom_stay_within_their_ranges() -> None:
    ranges = AugmentationRanges(0.0, 0.0, 0.2, 0.2, horizontal_flip=False)
    matrix = random_transforms(tf.constant(500), tf.constant(float(SIDE)), seed(6), ranges).numpy()
    zoom_x, zoom_y, shear = matrix[:, 0], matrix[:, 4], matrix[:, 1] / matrix[:, 4]
    for values, middle in ((zoom_x, 1.0), (zoom_y, 1.0), (shear, 0.0)):
        assert np.abs(values - middle).max() <= 0.2 + 1e-6
        assert np.abs(values - middle).max() > 0.18
    np.testing.assert_allclose(matrix[:, 3], 0.0)


def test_outside_repeats_the_nearest_edge() -> None:
    ranges = AugmentationRanges(0.0, 0.2, 0.0, 0.0, horizontal_flip=False)
    images = tf.fill([64, SIDE, SIDE, 3], 0.7)
    np.testing.assert_allclose(augment(images, seed(7), ranges), 0.7, atol=1e-6)


def test_rotation_is_in_degrees() -> None:
    ranges = AugmentationRanges(20.0, 0.0, 0.0, 0.0, horizontal_flip=False)
    matrix = random_transforms(tf.constant(500), tf.constant(64.0), seed(8), ranges).numpy()
    angles = np.arctan2(matrix[:, 3], matrix[:, 0])
    assert math.radians(18) < np.abs(angles).max() <= math.radians(20) + 1e-6


def test_quarter_turns_reach_all_eight_symmetries_and_nothing_else() -> None:
    ranges = AugmentationRanges(0.0, 0.0, 0.0, 0.0, horizontal_flip=True, quarter_turns=True)
    offset = centres(augment(dot(50, 40), seed(9), ranges)) - 32
    seen = {tuple(row) for row in np.rint(offset).astype(int).tolist()}
    expected = {(18, 8), (8, 18)}
    assert seen == {(sx * x, sy * y) for x, y in expected for sx in (1, -1) for sy in (1, -1)}


def test_colours_keep_their_ranges_and_one_draw_an_image() -> None:
    grey = tf.fill([256, 8, 8, 3], 0.5)
    brighter = augment(grey, seed(10), replace(NONE, brightness=0.2)).numpy()
    assert brighter.min() >= 0.4 - 1e-6
    assert brighter.max() <= 0.6 + 1e-6
    assert brighter.max() - brighter.min() > 0.18
    assert np.ptp(brighter, axis=(1, 2, 3)).max() < 1e-6
    tinted = augment(grey, seed(10), replace(NONE, colour_balance=0.1)).numpy()
    assert np.ptp(tinted, axis=3).max() > 0.05
    assert np.abs(tinted - 0.5).max() <= 0.05 + 1e-6


def test_contrast_keeps_the_mean_and_saturation_the_grey() -> None:
    images = 0.3 + 0.4 * tf.random.stateless_uniform([16, 8, 8, 3], [1, 2])
    contrast = augment(images, seed(11), replace(NONE, contrast=0.2)).numpy()
    mean = images.numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(contrast.mean(axis=(1, 2)), mean, atol=1e-5)
    spread = contrast.std(axis=(1, 2, 3)) / images.numpy().std(axis=(1, 2, 3))
    assert np.abs(spread - 1.0).max() > 0.1
    luma = np.array([0.299, 0.587, 0.114])
    saturated = augment(images, seed(11), replace(NONE, saturation=0.2)).numpy()
    np.testing.assert_allclose(saturated @ luma, images.numpy() @ luma, atol=1e-5)
    assert np.abs(saturated - images).max() > 0.01


def test_noise_has_the_strength_that_was_asked_for_and_spares_half_of_the_images() -> None:
    grey = tf.fill([400, 16, 16, 3], 0.5)
    noisy = augment(grey, seed(12), replace(NONE, noise=0.03)).numpy()
    strengths = noisy.std(axis=(1, 2, 3))
    assert 150 < (strengths < 1e-6).sum() < 250
    assert 0.028 < strengths.max() < 0.032
    assert strengths[strengths > 1e-6].mean() == pytest.approx(0.015, abs=0.002)
    assert abs(noisy.mean() - 0.5) < 1e-4
    np.testing.assert_array_equal(noisy, augment(grey, seed(12), replace(NONE, noise=0.03)))


def test_an_image_is_blurred_or_sharpened_by_shares_of_a_gaussian() -> None:
    edge = np.zeros((200, 16, 16, 3), np.float32) + 0.3
    edge[:, :, 8:] = 0.7
    blurred = augment(edge, seed(13), replace(NONE, blur=1.0)).numpy()
    sharpened = augment(edge, seed(13), replace(NONE, sharpen=0.5)).numpy()
    for images in (blurred, sharpened):
        np.testing.assert_allclose(images[:, :, :5], 0.3, atol=1e-5)
        np.testing.assert_allclose(images[:, :, 11:], 0.7, atol=1e-5)
        np.testing.assert_allclose(images, images[:, :1, :, :1] + 0 * images, atol=1e-6)
    steps = blurred[:, 0, 8, 0] - blurred[:, 0, 7, 0]
    assert 60 < (steps == np.float32(0.7) - np.float32(0.3)).sum() < 140  # those to be sharpened
    assert 0.2708 * 0.4 < steps.min() < 0.13  # next to all of the blurred copy
    steps = sharpened[:, 0, 8, 0] - sharpened[:, 0, 7, 0]
    assert steps.min() == pytest.approx(0.4, abs=1e-6)
    assert 0.52 < steps.max() < 0.4 * (1 + 0.5 * (1 - 0.2708)) + 1e-5
    uniform = augment(tf.fill([4, 8, 8, 3], 0.5), seed(13), replace(NONE, blur=1.0)).numpy()
    np.testing.assert_allclose(uniform, 0.5, atol=1e-6)
