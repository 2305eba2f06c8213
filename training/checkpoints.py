"""The state of a run that a kill leaves: weights, optimizer, seeds of dropout, progress."""

import uuid
from pathlib import Path

import keras
import tensorflow as tf

from training.layers import SharedDropout
from training.progress import Progress
from training.run_folder import RunError, read_state, write_state


def make_checkpoint(model: keras.Model) -> tf.train.Checkpoint:
    """What is written of a compiled model."""
    return tf.train.Checkpoint(
        model=model,
        optimizer=model.optimizer,
        # Keras does not show them to TensorFlow; without them a resumed run repeats its draws.
        seeds=[
            layer.seed_generator.state.value
            for layer in model.layers
            if isinstance(layer, SharedDropout)
        ],
    )


def save(run: Path, checkpoint: tf.train.Checkpoint, progress: Progress) -> None:
    """Write weights, optimizer and progress; a kill in between leaves the old ones valid."""
    # Never the folder that is in use, which may be of this very step.
    name = f"state-{progress.epoch}-{progress.step}-{uuid.uuid4().hex[:8]}"
    checkpoint.write(str(run / name / "checkpoint"))
    write_state(run, name, progress)


def restore(run: Path, checkpoint: tf.train.Checkpoint) -> bool:
    """Read the last checkpoint; whether there was one.

    Raises:
        RunError: It is of an earlier version, or damaged.
    """
    state = read_state(run)
    if state is None:
        return False
    try:
        checkpoint.read(str(run / state[0] / "checkpoint")).assert_consumed()
    except AssertionError as error:
        raise RunError(
            f"{run} was begun by an earlier version, whose checkpoints hold other values: name "
            "another folder, or finish it with that version (processes.jsonl has its commit)."
        ) from error
    except tf.errors.OpError as error:
        raise RunError(f"{run / state[0]} cannot be read: {error.message}") from error
    return True
