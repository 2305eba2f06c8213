"""Augmentation as one affine map per image, and one of its colours.

Rotation, shifts, shear, zoom and flip are multiplied into one matrix, so that an image is
resampled once. Outside pixels repeat the nearest edge ("nearest neighbor fill mode").
"""

import math
from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from training.config import Augmentation


@dataclass(frozen=True, slots=True)
class AugmentationRanges:
    """Largest distortion of each kind; the draw is uniform and symmetric.

    Attributes:
        rotation_degrees: Either way.
        shift: Of width and of height, as a share of the side.
        shear: Horizontal displacement per pixel of height (the tangent of the angle).
        zoom: Of either axis alone, as in Keras's `ImageDataGenerator`: 1 +- zoom.
        horizontal_flip: Mirror half of the images.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees as well; with mirroring that makes
            all eight symmetries of the square.
        brightness: Of a factor on all channels, 1 +- brightness.
        colour_balance: Of a factor on each channel alone (another lamp or camera).
        contrast: Of a factor on the distance from the image's mean colour.
        saturation: Of a factor on the distance from grey.
        blur: Largest share of a blurred copy that is mixed in (another lens, or focus).
        sharpen: Largest share of a blurred copy that is taken away and made up for by the image
            (unsharp masking); an image is either blurred or sharpened.
        noise: Largest standard deviation of Gaussian noise, of full scale; half of the images
            get none. A network that has only seen images smoothed by resampling answers by
            chance to the grain of another camera.
    """

    rotation_degrees: float = 20.0
    shift: float = 0.2
    shear: float = 0.2
    zoom: float = 0.2
    horizontal_flip: bool = True
    quarter_turns: bool = False
    brightness: float = 0.0
    colour_balance: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    noise: float = 0.0


RANGES: Final = {
    Augmentation.PAPER: AugmentationRanges(),
    Augmentation.DERMOSCOPY: AugmentationRanges(
        shift=0.1,
        shear=0.1,
        quarter_turns=True,
        brightness=0.15,
        colour_balance=0.05,
        contrast=0.2,
        saturation=0.2,
        blur=1.0,
        sharpen=0.5,
        noise=0.03,
    ),
}


def augment(images: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges) -> tf.Tensor:
    """Distort each image of a batch in its own way.

    Args:
        images: (batch, side, side, 3) float32 in [0, 1].
        seed: (2,) int32; the same seed gives the same distortions.
        ranges: How far.

    Returns:
        (batch, side, side, 3) float32 in [0, 1], bilinear, edges repeated.
    """
    for change in (_distort, _recolour, _refocus, _roughen):
        images = change(images, seed, ranges)
    return images


def _distort(images: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges) -> tf.Tensor:
    shape = tf.shape(images)
    transforms = random_transforms(shape[0], tf.cast(shape[1], tf.float32), seed, ranges)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=shape[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def _recolour(images: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges) -> tf.Tensor:
    """Change brightness, colour balance, contrast and saturation, in that order."""
    spans = (ranges.brightness, *[ranges.colour_balance] * 3, ranges.contrast, ranges.saturation)
    if not any(spans):
        return images
    # The second half of a seed's draws; the first moves the pixels.
    draws = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 6], seed + [0, _COLOUR], -1, 1)
    factors = 1.0 + draws * tf.constant(spans)
    images *= factors[..., :1] * factors[..., 1:4]
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    images = mean + factors[..., 4:5] * (images - mean)
    grey = tf.reduce_sum(images * _LUMA, axis=3, keepdims=True)
    return tf.clip_by_value(grey + factors[..., 5:] * (images - grey), 0.0, 1.0)


def _refocus(images: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges) -> tf.Tensor:
    """Blur or sharpen each image by another amount."""
    if not (ranges.blur or ranges.sharpen):
        return images
    draws = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed + [0, _FOCUS], -1, 1)
    share = tf.where(draws > 0.0, draws * ranges.blur, draws * ranges.sharpen)
    return tf.clip_by_value(images + share * (_blurred(images) - images), 0.0, 1.0)


def _blurred(images: tf.Tensor) -> tf.Tensor:
    """Convolve with a Gaussian, edges repeated."""
    radius = len(_GAUSSIAN) // 2
    padded = tf.concat([images[:, :1]] * radius + [images] + [images[:, -1:]] * radius, axis=1)
    padded = tf.concat(
        [padded[:, :, :1]] * radius + [padded] + [padded[:, :, -1:]] * radius, axis=2
    )
    taps = tf.constant(_GAUSSIAN, images.dtype)
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = tf.tile(tf.reshape(taps, shape), [1, 1, 3, 1])
        padded = tf.nn.depthwise_conv2d(padded, kernel, [1, 1, 1, 1], "VALID")
    return padded


def _roughen(images: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges) -> tf.Tensor:
    """Add noise of another strength to each image."""
    if not ranges.noise:
        return images
    shape = tf.shape(images)
    strength = tf.random.stateless_uniform([shape[0], 1, 1, 1], seed + [0, _NOISE], -1.0, 1.0)
    noise = tf.random.stateless_normal(shape, seed + [0, 2 * _NOISE])
    return tf.clip_by_value(images + tf.nn.relu(strength) * ranges.noise * noise, 0.0, 1.0)


_COLOUR: Final = 1 << 30
"""Added to a seed for the colours' draws, beyond any step number."""

_FOCUS: Final = 1 << 27
"""Added to a seed for the draws of blur and sharpening."""

_GAUSSIAN: Final = (0.0366, 0.1113, 0.2167, 0.2708, 0.2167, 0.1113, 0.0366)
"""Seven taps of a Gaussian with a standard deviation of 1.5 pixels; they sum to 1."""

_NOISE: Final = 1 << 28
"""Added to a seed for the noise's draws."""

_LUMA: Final = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""


def random_transforms(
    batch: tf.Tensor, side: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges
) -> tf.Tensor:
    """Draw output-to-input maps in the form `ImageProjectiveTransformV3` takes.

    Args:
        batch: () int32, how many.
        side: () float32, of the square images in pixels.
        seed: (2,) int32.
        ranges: How far.

    Returns:
        (batch, 8) float32: a0 a1 a2 b0 b1 b2 0 0.
    """
    draws = tf.random.stateless_uniform([8, batch], seed, -1.0, 1.0)
    angle = draws[0] * math.radians(ranges.rotation_degrees)
    if ranges.quarter_turns:
        angle += tf.floor(draws[7] * 2.0) * (math.pi / 2.0)
    shift_x, shift_y = draws[1] * ranges.shift * side, draws[2] * ranges.shift * side
    shear = draws[3] * ranges.shear
    zoom_x, zoom_y = 1.0 + draws[4] * ranges.zoom, 1.0 + draws[5] * ranges.zoom
    if ranges.horizontal_flip:
        zoom_x *= tf.where(draws[6] < 0.0, -1.0, 1.0)

    # rotation @ shear @ zoom, about the image's centre
    cos, sin = tf.cos(angle), tf.sin(angle)
    a0, a1 = cos * zoom_x, (cos * shear - sin) * zoom_y
    b0, b1 = sin * zoom_x, (sin * shear + cos) * zoom_y
    centre = (side - 1.0) / 2.0
    a2 = centre + shift_x - a0 * centre - a1 * centre
    b2 = centre + shift_y - b0 * centre - b1 * centre
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)
