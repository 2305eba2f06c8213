"""One step of training shared by devices and machines, with the sums of one device.

```
batch of the recipe ──┬─ rows of replica 0 ── gradients ─┐
                      ├─ rows of replica 1 ── gradients ─┼─ sum ── the same step everywhere
                      └─ ...                             ┘
```

Every process makes the same batches and takes its replicas' rows; batch normalisation and dropout
see the whole batch, so that the numbers do not depend on how many replicas there are. The first
process, the chief, writes the run's folder and measures validation. `Model.fit` of Keras 3 cannot
run under `MultiWorkerMirroredStrategy` (keras-team/keras#20585). ADR-0030.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

Step = Callable[[Iterator[Any]], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""Takes the next batch -> its rows, mean loss and share of right answers: () float32 each."""


def choose_strategy() -> tf.distribute.Strategy:
    """The devices that this process trains on; to be called before TensorFlow does anything.

    Returns:
        With `TF_CONFIG` in the environment, as TensorFlow's guide to multi-worker training sets
        it, every device of all its workers, which this call waits for. Else all GPUs of the
        machine where there are several, else the default device.

    Raises:
        ValueError: `TF_CONFIG` is not JSON, or asks for a task that this package has not.
    """
    if config := os.environ.get("TF_CONFIG"):
        _check_cluster(config)
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(len(gpus))])
    return tf.distribute.get_strategy()


def _check_cluster(config: str) -> None:
    expected = (
        'TF_CONFIG must be {"cluster": {"worker": ["HOST:PORT", ...]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        said = json.loads(config)
        workers, task = said["cluster"]["worker"], said["task"]
        valid = (
            set(said["cluster"]) == {"worker"}
            and task["type"] == "worker"
            and isinstance(workers, list)
            and int(task["index"]) in range(len(workers))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{expected}; it is {config[:200]}") from error
    if not valid:
        raise ValueError(f"{expected}, one entry a process; it is {config[:200]}")


def num_processes(strategy: tf.distribute.Strategy) -> int:
    """How many processes share a step."""
    resolver = strategy.cluster_resolver
    return len(resolver.cluster_spec().as_dict().get("worker", [0])) if resolver else 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run's folder."""
    resolver = strategy.cluster_resolver
    return not resolver or not resolver.task_id


def of_chief(strategy: tf.distribute.Strategy, values: Sequence[float]) -> list[float]:
    """What the chief says, in every process; all of them wait for it here.

    Args:
        strategy: Of the run.
        values: The chief's; as many in the others, which do not count.
    """
    if num_processes(strategy) == 1:
        return list(values)

    def masked() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        return context.all_reduce("SUM", tf.where(first, said, tf.zeros_like(said)))

    said = tf.constant(values, tf.float64)
    summed = strategy.run(tf.function(masked))
    return [float(value) for value in strategy.experimental_local_results(summed)[0]]


def synchronise(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Have batch normalisation take its moments over all replicas, where there are several."""
    if strategy.num_replicas_in_sync > 1:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def share(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Iterable[Any]:
    """Each replica's rows of each batch.

    Args:
        strategy: Of the run.
        batches: Tuples or dictionaries of tensors with the same number of rows, which is a
            multiple of the number of replicas.

    Returns:
        What `train_step`'s function takes.
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

    def on_one(batch: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x, y, weights = batch
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            # A mean over this replica's rows, divided by the number of replicas.
            loss = model.compute_loss(x, y, logits, weights)
            scaled = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(
            zip(tape.gradient(scaled, variables), variables, strict=True)
        )
        return _rows(y), loss, _share_of_right(y, logits) / strategy.num_replicas_in_sync

    inner = tf.function(on_one, jit_compile=True, reduce_retracing=True) if compiled else on_one

    # The iterator has batches of any size, so that the graph is made once.
    @tf.function
    def on_all(batches: Iterator[Any]) -> tuple[tf.Tensor, ...]:
        found = strategy.run(inner, args=(next(batches),))
        return tuple(strategy.reduce("SUM", value, axis=None) for value in found)

    return on_all


def validation_step(model: keras.Model, *, compiled: bool) -> Step:
    """What a model's answers to a batch are worth; to be called outside the strategy's scope.

    Returns:
        A function of an iterator over batches: inputs, labels (rows, 7) float32.
    """

    def on_one(batch: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x, y = batch
        logits = model(x, training=False)
        loss = model.compute_loss(x, y, logits, training=False)
        return _rows(y), loss, _share_of_right(y, logits)

    inner = tf.function(on_one, jit_compile=True, reduce_retracing=True) if compiled else on_one

    @tf.function
    def step(batches: Iterator[Any]) -> tuple[tf.Tensor, ...]:
        return inner(next(batches))

    return step


def validate(step: Step, batches: tf.data.Dataset) -> tuple[float, float]:
    """Mean loss and accuracy by rows.

    Args:
        step: From `validation_step`.
        batches: A finite number of them.
    """
    iterator = iter(batches)
    found = [tuple(map(float, step(iterator))) for _ in range(len(batches))]
    num_rows = sum(rows for rows, _, _ in found)
    return (
        sum(rows * loss for rows, loss, _ in found) / num_rows,
        sum(rows * accuracy for rows, _, accuracy in found) / num_rows,
    )


def _rows(labels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(labels)[0], tf.float32)


def _share_of_right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    right = tf.equal(tf.argmax(labels, axis=-1), tf.argmax(logits, axis=-1))
    return tf.reduce_mean(tf.cast(right, tf.float32))
