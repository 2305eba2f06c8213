"""The devices and processes that share a training run, and what they agree on (ADR-0030)."""

import json
import os
import re
from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from training.run_folder import RunError

_EXPECTED: Final = (
    'TF_CONFIG must be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", '
    '"index": 0}}: workers alone, each another address, and this process one of them'
)
_ADDRESS: Final = re.compile(r"[^\s:/]+:(\d{1,5})|\[[0-9A-Fa-f:.]+\]:(\d{1,5})")


def local_strategy() -> tf.distribute.Strategy:
    """All GPUs of the machine where there are several, else the default device."""
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(len(gpus))])
    return tf.distribute.get_strategy()


def choose_strategy() -> tf.distribute.Strategy:
    """The devices to train on; to be called before TensorFlow does anything.

    Returns:
        With `TF_CONFIG` in the environment, as TensorFlow's guide to multi-worker training sets
        it, every device of all its workers, which this call waits for; else `local_strategy`'s.

    Raises:
        ValueError: `TF_CONFIG` is not a cluster of workers.
    """
    config = os.environ.get("TF_CONFIG")
    if not config:
        return local_strategy()
    _check_cluster(config)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _check_cluster(config: str) -> None:
    try:
        said = json.loads(config)
        workers, task = said["cluster"]["worker"], said["task"]
        valid = (
            set(said["cluster"]) == {"worker"}
            and all(_is_address(worker) for worker in workers)
            and len(set(workers)) == len(workers)
            and task["type"] == "worker"
            and type(task["index"]) is int
            and 0 <= task["index"] < len(workers)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{_EXPECTED}. It is {config[:200]}") from error
    if not valid:
        raise ValueError(f"{_EXPECTED}. It is {config[:200]}")


def _is_address(value: Any) -> bool:
    match = _ADDRESS.fullmatch(value)  # a TypeError where it is no string
    return match is not None and 1 <= int(match[1] or match[2]) <= 65535


LEFT_ALONE: Final = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises in a process whose others have ended."""


def num_processes(strategy: tf.distribute.Strategy) -> int:
    """How many processes share a step."""
    resolver = strategy.cluster_resolver
    return len(resolver.cluster_spec().as_dict().get("worker", [0])) if resolver else 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process measures, and writes the run's folder."""
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


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Go on when every process is here."""
    of_chief(strategy, [0.0])


def agree(strategy: tf.distribute.Strategy, values: Sequence[int], otherwise: str) -> None:
    """Go on where every process has the chief's values.

    Args:
        strategy: Of the run.
        values: Below 2**53.
        otherwise: What to tell whoever has others.

    Raises:
        RunError: This process has others. The rest end at their next step.
    """
    if of_chief(strategy, values) != list(values):
        raise RunError(otherwise)
