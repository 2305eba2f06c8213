"""The paper's augmentation as one affine map per image (section III.B).

Rotation, shifts, shear, zoom and flip are multiplied into one matrix, so that an image is
resampled once. Outside pixels repeat the nearest edge ("nearest neighbor fill mode").
"""

import math
from dataclasses import dataclass
from typing import Final

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class AugmentationRanges:
    """Largest distortion of each kind; the draw is uniform and symmetric.

    Attributes:
        rotation_degrees: Either way.
        shift: Of width and of height, as a share of the side.
        shear: Horizontal displacement per pixel of height (the tangent of the angle).
        zoom: Of either axis alone, as in Keras's `ImageDataGenerator`: 1 +- zoom.
        horizontal_flip: Mirror half of the images.
    """

    rotation_degrees: float = 20.0
    shift: float = 0.2
    shear: float = 0.2
    zoom: float = 0.2
    horizontal_flip: bool = True


PAPER_RANGES: Final = AugmentationRanges()


def augment(images: tf.Tensor, seed: tf.Tensor, ranges: AugmentationRanges) -> tf.Tensor:
    """Distort each image of a batch in its own way.

    Args:
        images: (batch, side, side, 3) float32.
        seed: (2,) int32; the same seed gives the same distortions.
        ranges: How far.

    Returns:
        (batch, side, side, 3) float32, bilinear, edges repeated.
    """
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
    draws = tf.random.stateless_uniform([7, batch], seed, -1.0, 1.0)
    angle = draws[0] * math.radians(ranges.rotation_degrees)
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
