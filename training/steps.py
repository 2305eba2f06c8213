"""One step of training shared by devices, with the sums of one device; and validation.

```
batch of the recipe ──┬─ rows of replica 0 ── gradients ─┐
                      ├─ rows of replica 1 ── gradients ─┼─ sum ── the same step everywhere
                      └─ ...                             ┘
```

Every process makes the same batches and takes its replicas' rows; batch normalisation and dropout
see the whole batch, so that the numbers do not depend on how many replicas there are. `Model.fit`
of Keras 3 cannot run under `MultiWorkerMirroredStrategy` (keras-team/keras#20585). ADR-0030.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from training.distillation import logits_of

Step = Callable[[Iterator[Any]], tuple[tf.Tensor, tf.Tensor]]
"""Takes the next batch -> its mean loss and its share of right answers, () float32 each."""


def synchronise(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Have batch normalisation take its moments over all replicas, where there are several."""
    if strategy.num_replicas_in_sync > 1:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def limit_momentum(model: keras.Model, max_momentum: float) -> None:
    """Have batch normalisation's moving statistics reach back no further than a stage allows."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, max_momentum)


def share(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Iterable[Any]:
    """Each replica's rows of each batch.

    Args:
        strategy: Of the run.
        batches: Tuples of tensors, or of dictionaries of tensors, all with the same number of
            rows, which is a multiple of the number of replicas.

    Returns:
        What `train_step`'s function takes an iterator of.
    """
    num_replicas = strategy.num_replicas_in_sync
    if num_replicas == 1:
        return batches

    def of_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        num_own = num_replicas // context.num_input_pipelines
        first = context.input_pipeline_id * num_own

        def rows(replica: tf.Tensor, batch: Any) -> Any:
            def cut(tensor: tf.Tensor) -> tf.Tensor:
                size = tf.shape(tensor, tf.int64)[0] // num_replicas
                return tensor[replica * size : (replica + 1) * size]

            return tf.nest.map_structure(cut, batch)

        def split(*batch: Any) -> tf.data.Dataset:
            own = tf.data.Dataset.range(first, first + num_own)
            return own.map(lambda replica: rows(replica, batch))

        return batches.flat_map(split).prefetch(num_own)

    return strategy.distribute_datasets_from_function(of_process)


def train_step(model: keras.Model, strategy: tf.distribute.Strategy, *, compiled: bool) -> Step:
    """One optimizer step on all replicas.

    Args:
        model: Compiled, made within the strategy's scope.
        strategy: Of the run.
        compiled: By XLA.

    Returns:
        A function of an iterator over `share`'s batches: inputs, labels (rows, 7) float32,
        sample weights (rows,) float32.
    """

    def on_one(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        x, y, weights = batch
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            # A mean over this replica's rows, divided by the number of replicas.
            loss = model.compute_loss(x, y, outputs, weights)
            scaled = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(
            zip(tape.gradient(scaled, variables), variables, strict=True)
        )
        return loss, _share_of_right(y, logits_of(outputs)) / strategy.num_replicas_in_sync

    inner = _with_xla(on_one) if compiled else on_one

    # The iterator has batches of any size, so that the graph is made once.
    @tf.function
    def on_all(batches: Iterator[Any]) -> tuple[tf.Tensor, tf.Tensor]:
        loss, right = strategy.run(inner, args=(next(batches),))
        return strategy.reduce("SUM", loss, axis=None), strategy.reduce("SUM", right, axis=None)

    return on_all


class Validation:
    """Measures a model on one device, outside of any strategy's scope."""

    def __init__(self, model: keras.Model, batches: tf.data.Dataset, *, compiled: bool) -> None:
        """Make the graph ready.

        Args:
            model: Compiled.
            batches: Of inputs and labels (rows, 7) float32; a finite number of them.
            compiled: By XLA.
        """
        self._batches = batches

        def on_one(batch: Any) -> tuple[tf.Tensor, ...]:
            x, y = batch
            outputs = model(x, training=False)
            loss = model.compute_loss(x, y, outputs, training=False)
            right = _share_of_right(y, logits_of(outputs))
            return tf.cast(tf.shape(y)[0], tf.float32), loss, right

        inner = _with_xla(on_one) if compiled else on_one

        @tf.function
        def step(batches: Iterator[Any]) -> tuple[tf.Tensor, ...]:
            return inner(next(batches))

        self._step = step

    def measure(self) -> tuple[float, float]:
        """Loss and accuracy of the model as it is now, means over the rows."""
        iterator = iter(self._batches)
        found = [tuple(map(float, self._step(iterator))) for _ in range(len(self._batches))]
        num_rows = sum(rows for rows, _, _ in found)
        return (
            sum(rows * loss for rows, loss, _ in found) / num_rows,
            sum(rows * accuracy for rows, _, accuracy in found) / num_rows,
        )


def _with_xla(function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True, reduce_retracing=True)


def _share_of_right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    right = tf.equal(tf.argmax(labels, axis=-1), tf.argmax(logits, axis=-1))
    return tf.reduce_mean(tf.cast(right, tf.float32))
