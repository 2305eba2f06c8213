"""A teacher's maps as something to learn, beside its answers.

Seven logits an image are little to raise a network from random weights by. On each of the coarsest
grids a 1x1 convolution of the student's last maps is to tell the teacher's; what share of them it
leaves unexplained is added to the loss. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR
2015, of which it differs by having several hints, for the whole of a run. ADR-0033.
"""

from collections.abc import Sequence
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.architectures import is_own_layer

NUM_HINTS: Final = 3
"""For backbones that halve the image five times: at 8, 16 and 32 pixels a place."""


def hint_maps(model: keras.Model) -> list[keras.KerasTensor]:
    """The last maps of a hybrid's backbone on each of its coarsest grids, attention included.

    Args:
        model: From `build_hybrid`, at a multiple of 32 pixels.

    Returns:
        (batch, rows, columns, channels) each, `NUM_HINTS` of them, the finest grid first.
    """
    last = {
        layer.output.shape[1]: layer.output
        for layer in model.layers
        if len(layer.output.shape) == 4
        and not is_own_layer(layer)
        and not isinstance(layer, keras.layers.ZeroPadding2D)  # a grid with a frame
    }
    return [last[side] for side in sorted(last)[NUM_HINTS - 1 :: -1]]


class Hints(keras.layers.Layer):
    """Tells a teacher's maps from a student's."""

    def __init__(self, num_channels: Sequence[int]) -> None:
        """Have a projection for each map.

        Args:
            num_channels: Of the teacher's maps, in the order of `hint_maps`.
        """
        super().__init__(name="hints", dtype="float32")
        self._projections = [
            keras.layers.Dense(
                channels,
                kernel_initializer="zeros",  # a guess would throw the first steps about
                dtype="float32",
                name=f"hint_{index}",
            )
            for index, channels in enumerate(num_channels)
        ]
        self._grids: list[tuple[int, int]] = []

    def build(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Make the projections' weights for a student's maps of these shapes."""
        for projection, shape in zip(self._projections, shapes, strict=True):
            projection.build(shape)
        self._grids = [(shape[1], shape[2]) for shape in shapes]

    def call(self, maps: Sequence[tf.Tensor], taught: Sequence[tf.Tensor]) -> tf.Tensor:
        """What the student leaves unexplained.

        Args:
            maps: Of the student, (batch, rows, columns, channels) each.
            taught: Of the teacher, for the same images at any size.

        Returns:
            () float32, the mean over the maps: 0 where each is told exactly, 1 where nothing is
            told but a mean of nought; divided by the number of replicas. At each place the
            channels of both are first brought to a mean of 0 and a variance of 1, so that all
            places and depths count alike.
        """
        unexplained = [
            tf.reduce_mean(
                tf.square(projection(_standardised(own)) - _standardised(_on_grid(other, *grid)))
            )
            for projection, own, other, grid in zip(
                self._projections, maps, taught, self._grids, strict=True
            )
        ]
        # As Keras's losses: steps add up what replicas return.
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return tf.add_n(unexplained) / len(unexplained) / num_replicas


def _standardised(maps: tf.Tensor) -> tf.Tensor:
    """Maps whose channels have a mean of 0 and a variance of 1 at each place."""
    mean, variance = tf.nn.moments(maps, axes=[-1], keepdims=True)
    return (maps - mean) * tf.math.rsqrt(variance + 1e-6)


def _on_grid(maps: tf.Tensor, num_rows: int, num_columns: int) -> tf.Tensor:
    """Maps averaged over the places of a coarser grid."""
    # As products of matrices, which XLA compiles, unlike antialiased resizing.
    rows = _averaging(maps.shape[1], num_rows)
    columns = _averaging(maps.shape[2], num_columns)
    return tf.einsum("ih,jw,bhwc->bijc", rows, columns, maps)


def _averaging(num_places: int, num_averages: int) -> npt.NDArray[np.float32]:
    """The share of each place of a row in averages that cut the row evenly.

    Returns:
        (num_averages, num_places), rows that sum to 1.
    """
    edges = np.linspace(0.0, num_places, num_averages + 1)[:, None]
    places = np.arange(num_places)[None]
    covered = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return np.asarray(np.maximum(covered, 0.0) * num_averages / num_places, np.float32)
