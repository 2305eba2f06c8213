"""tf.data pipelines over a prepared dataset; an epoch's order depends on the seed alone.

```
images.npy -> one array at the stage's size -> shuffled rows -> batches -> augmented, [0, 1]
```
"""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.domain.images import MODEL_INPUT_SIZE, RgbImage, resize
from app.domain.labels import NUM_CLASSES
from training.augment import RANGES, augment
from training.config import Augmentation, Recipe
from training.metadata import encode_metadata
from training.prepare import Part, PreparedData

_RESIZE_CHUNK: Final = 512

_Batch = tuple[Any, tf.Tensor, tf.Tensor]
"""Inputs (a tensor, or a dictionary of tensors), labels, sample weights."""


@dataclass(frozen=True)
class Examples:
    """One part of the data at one image size, in memory.

    Attributes:
        images: (num_images, size, size, 3) uint8.
        labels: (num_images,) int64 class indices.
        metadata: (num_images, 20) float32 (`training.metadata`), or None without metadata.
    """

    images: RgbImage
    labels: npt.NDArray[np.int64]
    metadata: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)


def load_examples(
    data: PreparedData, part: Part, image_size: int, *, metadata: bool = False
) -> Examples:
    """Read a part, resized from the model input when the stage is smaller or larger."""
    rows = data.rows(part)
    encoded = encode_metadata(data.table.iloc[rows]) if metadata else None
    if image_size == MODEL_INPUT_SIZE:
        return Examples(data.images[rows], data.labels(rows), encoded)
    images = np.empty((len(rows), image_size, image_size, 3), np.uint8)
    for start in range(0, len(rows), _RESIZE_CHUNK):
        chunk = rows[start : start + _RESIZE_CHUNK]
        for offset, pixels in enumerate(data.images[chunk]):
            images[start + offset] = resize(pixels, image_size)
    return Examples(images, data.labels(rows), encoded)


def class_weights(labels: npt.NDArray[np.int64], exponent: float) -> npt.NDArray[np.float32]:
    """Weight of each class in the loss, with mean 1 over the images.

    Args:
        labels: (num_images,) int64 of the training part.
        exponent: 1 gives n / (num_classes * n_class), the "balanced" rule of King and Zeng
            (2001) up to scale; 0 gives all ones.

    Returns:
        (7,) float32; 0 for a class without images.
    """
    counts = np.bincount(labels, minlength=NUM_CLASSES).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -exponent, 0.0)
    return np.asarray(weights / (weights * counts).sum() * counts.sum(), np.float32)


def steps_per_epoch(
    num_images: int, batch_size: int, limit: int | None, num_replicas: int = 1
) -> int:
    """Batches of an epoch: every image once, the last batch smaller; at most `limit`.

    Several replicas want as many rows each: up to `num_replicas` - 1 images wait for another
    epoch, whose order is another.

    Raises:
        ValueError: There are fewer images than replicas.
    """
    if num_images < num_replicas:
        raise ValueError(f"{num_images} training images are too few for {num_replicas} devices.")
    steps = -(-(num_images - num_images % num_replicas) // batch_size)
    return steps if limit is None else min(steps, limit)


def training_batches(
    examples: Examples,
    recipe: Recipe,
    weights: npt.NDArray[np.float32],
    *,
    epoch: int,
    steps: range,
    num_replicas: int = 1,
) -> tf.data.Dataset:
    """Some batches of one epoch, the same at every call.

    Args:
        examples: The training part.
        recipe: Its batch size, seed, augmentation and mixup count here.
        weights: (7,) float32 by class.
        epoch: Counted from 0 over all stages.
        steps: Which steps of the epoch; a resumed one begins later than at 0.
        num_replicas: That share each batch; the last one is a multiple of it too.

    Returns:
        Batches of (images (batch, size, size, 3) float32 in [0, 1], labels (batch, 7)
        float32 that sum to 1, sample weights (batch,) float32); with metadata, a dictionary
        of `image` and `metadata` (batch, 20) float32 in place of the images.
    """
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(examples))
    order = order[: len(order) - len(order) % num_replicas]
    size = examples.images.shape[1]
    columns = _metadata_columns(examples)

    def gather(
        step: np.int64,
    ) -> tuple[RgbImage, npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        return examples.images[rows], examples.labels[rows], columns[rows]

    def load(step: tf.Tensor) -> _Batch:
        images, labels, metadata = tf.numpy_function(
            gather, [step], [tf.uint8, tf.int64, tf.float32]
        )
        images = tf.cast(tf.ensure_shape(images, [None, size, size, 3]), tf.float32) / 255.0
        labels = tf.ensure_shape(labels, [None])
        metadata = tf.ensure_shape(metadata, [None, columns.shape[1]])
        # A seed of its own for every step of the run.
        seeds = tf.stack([recipe.seed + epoch, tf.cast(step, tf.int32)])
        if recipe.augmentation is not Augmentation.NONE:
            images = augment(images, seeds, RANGES[recipe.augmentation])
        batch = (
            _inputs(images, metadata),
            tf.one_hot(labels, NUM_CLASSES),
            tf.gather(weights, labels),
        )
        return _mix(batch, seeds, recipe.mixup) if recipe.mixup else batch

    return (
        tf.data.Dataset.range(steps.start, steps.stop)
        .map(load, num_parallel_calls=2, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _mix(batch: _Batch, seed: tf.Tensor, alpha: float) -> _Batch:
    """Mix each image of a batch with another one; labels, weights, metadata go along."""
    draws = tf.random.stateless_gamma([2, tf.shape(batch[2])[0]], seed, alpha)
    share = draws[0] / (draws[0] + draws[1] + keras.config.epsilon())

    def mixed(values: tf.Tensor) -> tf.Tensor:
        own = tf.reshape(share, [-1] + [1] * (values.shape.rank - 1))
        return own * values + (1.0 - own) * tf.reverse(values, axis=[0])

    return tf.nest.map_structure(mixed, batch)


def evaluation_batches(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """All images in order: (inputs as in `training_batches`, one-hot labels float32)."""
    dataset = tf.data.Dataset.from_tensor_slices(
        (examples.images, _metadata_columns(examples), examples.labels)
    )
    return (
        dataset.batch(batch_size)
        .map(
            lambda images, metadata, labels: (
                _inputs(tf.cast(images, tf.float32) / 255.0, metadata),
                tf.one_hot(labels, NUM_CLASSES),
            )
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _metadata_columns(examples: Examples) -> npt.NDArray[np.float32]:
    """(num_images, 20), or (num_images, 0) without metadata."""
    if examples.metadata is None:
        return np.empty((len(examples), 0), np.float32)
    return examples.metadata


def _inputs(images: tf.Tensor, metadata: tf.Tensor) -> tf.Tensor | dict[str, tf.Tensor]:
    """What a hybrid takes: images alone where the metadata have no columns."""
    return {"image": images, "metadata": metadata} if metadata.shape[1] else images
