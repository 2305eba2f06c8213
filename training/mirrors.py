"""An image beside its three mirrorings, and the mean of what a network makes of the four."""

from typing import Final

import tensorflow as tf

_AXES: Final = ((), (0,), (1,), (0, 1))
"""Of rows and columns, what each mirroring turns round; none of the image itself."""


def mirrorings(images: tf.Tensor) -> tf.Tensor:
    """All mirrorings in one batch.

    Args:
        images: (batch, rows, columns, ...) of any dtype.

    Returns:
        (4 x batch, rows, columns, ...): the images as they are, upside down, left to right, both.
    """
    return tf.concat([_turn(images, axes, rows_axis=1) for axes in _AXES], axis=0)


def mean_of_mirrorings(values: tf.Tensor, rows_axis: int | None = None) -> tf.Tensor:
    """The mean over the four mirrorings of each image.

    Args:
        values: (4 x batch, ...) float32, in the order of `mirrorings`.
        rows_axis: Of maps, which are mirrored back: the axis of their rows, before that of their
            columns. None for what has no place.

    Returns:
        (batch, ...) float32.
    """
    groups = tf.unstack(tf.reshape(values, [len(_AXES), -1, *values.shape[1:]]))
    if rows_axis is not None:
        groups = [_turn(group, axes, rows_axis) for group, axes in zip(groups, _AXES, strict=True)]
    return tf.add_n(groups) / float(len(_AXES))


def _turn(values: tf.Tensor, axes: tuple[int, ...], rows_axis: int) -> tf.Tensor:
    turned = [slice(None, None, -1 if axis in axes else None) for axis in (0, 1)]
    return values[(slice(None),) * rows_axis + tuple(turned)]
