"""Train a recipe; a run killed at any moment goes on from its last checkpoint."""

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.architectures import backbone_variables, build_hybrid
from training.artifacts import assign_stored, load_answers
from training.config import Precision, Recipe
from training.data import (
    class_weights,
    evaluation_batches,
    load_examples,
    steps_per_epoch,
    training_batches,
)
from training.distillation import DistilledHybrid
from training.prepare import Part, PreparedData
from training.progress import Progress, after_epoch, after_step, is_finished, rate_at, start
from training.provenance import running_code
from training.run_folder import (
    CHECKPOINT_SECONDS,
    RunResult,
    append_history,
    best_weights,
    claim,
    read_state,
    record_process,
    write_result,
    write_state,
)

logger = logging.getLogger(__name__)


def fit(
    recipe: Recipe,
    data: PreparedData,
    run: Path,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    report_step: Callable[[Progress, int, float], None] = lambda _progress, _steps, _loss: None,
    strategy: tf.distribute.Strategy | None = None,
) -> RunResult:
    """Train until the recipe is done, from the start or from where the run was killed.

    Args:
        recipe: What to train.
        data: A dataset prepared for the recipe's protocol.
        run: The run's folder; made if missing.
        checkpoint_seconds: Least time between two checkpoints within an epoch.
        report_step: Called after each step with (progress, steps of the epoch, mean loss).
        strategy: How to spread a step over devices; `choose_strategy`'s where it is None.

    Returns:
        The result, also written to `result.json`.

    Raises:
        RunError: The folder belongs to another recipe or dataset, or the data was split
            by another protocol.
        ArtifactError: The teacher or the initial model is not intact.
        ValueError: The initial model's weights do not fit.
    """
    claim(run, recipe, data)
    code = running_code()
    record_process(run, code.git_commit, clean=code.clean)
    state = read_state(run)
    progress = start(recipe) if state is None else state[1]
    keras.utils.set_random_seed(recipe.seed)
    keras.mixed_precision.set_global_policy(recipe.precision.value)
    strategy = strategy or choose_strategy()
    try:
        while not is_finished(progress, recipe):
            progress = _run_stage(
                recipe, data, run, progress, strategy, checkpoint_seconds, report_step
            )
    finally:
        keras.mixed_precision.set_global_policy(Precision.FLOAT32.value)
    result = RunResult(
        steps=progress.total_steps,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        best_validation_accuracy=progress.best_accuracy,
        seconds=round(progress.seconds, 1),
        hardware=describe_hardware(),
    )
    write_result(run, result)
    return result


def choose_strategy() -> tf.distribute.Strategy:
    """All GPUs of the machine in step where there are several, else the default device."""
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(len(gpus))])
    return tf.distribute.get_strategy()


def describe_hardware() -> str:
    """The devices that TensorFlow trains on, in words."""
    gpus = [
        str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if gpus:
        return ", ".join(gpus)
    return f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"


def _run_stage(
    recipe: Recipe,
    data: PreparedData,
    run: Path,
    progress: Progress,
    strategy: tf.distribute.Strategy,
    checkpoint_seconds: float,
    report_step: Callable[[Progress, int, float], None],
) -> Progress:
    """Train one stage to its end."""
    stage = progress.stage
    image_size = recipe.stages[stage].image_size
    train = load_examples(data, Part.TRAIN, image_size, metadata=recipe.metadata)
    validation = evaluation_batches(
        load_examples(data, Part.VALIDATION, image_size, metadata=recipe.metadata),
        recipe.batch_size,
    )
    with strategy.scope():
        model = _compile(recipe, image_size)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    if not _restore(run, checkpoint) and recipe.initial_model:
        assign_stored(model, Path(recipe.initial_model))
    weights = class_weights(train.labels, recipe.class_weight_exponent)
    num_steps = steps_per_epoch(len(train), recipe.batch_size, recipe.stages[stage].steps_per_epoch)
    while progress.stage == stage:
        batches = training_batches(
            train, recipe, weights, epoch=progress.epoch, steps=range(progress.step, num_steps)
        )
        keeper = _Keeper(
            recipe, run, checkpoint, progress, num_steps, checkpoint_seconds, report_step
        )
        if progress.step < num_steps:  # else a kill came between the last step and validation
            model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[keeper])
        with averaged(model, keeper.last_weights):
            loss, accuracy = model.evaluate(validation, verbose=0)
            progress = _close_epoch(run, recipe, model, keeper.progress_now(), loss, accuracy)
        _save(run, checkpoint, progress)
    return progress


def _compile(recipe: Recipe, image_size: int) -> keras.Model:
    # XLA takes longer to compile these graphs for a processor than it saves there.
    compiled = bool(tf.config.list_physical_devices("GPU"))
    model = build_hybrid(recipe, image_size)
    if recipe.teacher:
        model = DistilledHybrid(
            model,
            load_answers(Path(recipe.teacher), compiled=compiled),
            weight=recipe.distillation_weight,
            temperature=recipe.distillation_temperature,
        )
    model.compile(
        optimizer=_optimizer(recipe, model),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.label_smoothing
        ),
        # An object, for a name would become one within the first trace, which is then made twice.
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        jit_compile=compiled,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _optimizer(recipe: Recipe, model: keras.Model) -> keras.optimizers.Optimizer:
    optimizer = DiscriminativeAdam(
        [variable.path for variable in backbone_variables(model)],
        recipe.backbone_rate,
        learning_rate=recipe.stages[0].learning_rate,
        weight_decay=recipe.weight_decay or None,
        use_ema=recipe.average_momentum > 0.0,
        ema_momentum=recipe.average_momentum,
    )
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(
            [v for v in model.trainable_variables if len(v.shape) < 2]
        )
    return optimizer


class DiscriminativeAdam(keras.optimizers.Adam):
    """Adam with a learning rate of its own for some variables (Howard and Ruder, 2018)."""

    def __init__(self, paths: Iterable[str], factor: float, **settings: Any) -> None:
        """Choose the variables.

        Args:
            paths: `path` of each variable whose rate is multiplied.
            factor: By how much.
            **settings: Adam's.
        """
        super().__init__(**settings)
        self._factors = dict.fromkeys(paths, factor)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Adam's step at the variable's own rate."""
        # TensorFlow's variable comes in, which does not know its Keras path.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        factor = self._factors.get(path, 1.0)
        super().update_step(gradient, variable, learning_rate * factor)


@contextmanager
def averaged(model: keras.Model, last: list[Any] | None) -> Iterator[None]:
    """Within, a model holds its moving averages, if it has them; then its last weights.

    `Model.fit` leaves the averages in the model, so that `last` brings what it replaced.
    """
    variables = model.trainable_variables
    if last is None:
        last = [variable.numpy() for variable in variables]
    model.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, last, strict=True):
            variable.assign(value)


class _Keeper(keras.callbacks.Callback):
    """Set the rate of each step, count, write checkpoints in mid-epoch, tell the caller.

    Attributes:
        last_weights: The trainable weights after the epoch's last step; None before it.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        checkpoint: tf.train.Checkpoint,
        progress: Progress,
        num_steps: int,
        checkpoint_seconds: float,
        report_step: Callable[[Progress, int, float], None],
    ) -> None:
        super().__init__()
        self.last_weights: list[Any] | None = None
        self._recipe, self._run, self._checkpoint = recipe, run, checkpoint
        self._resumed = self._progress = progress
        self._num_steps = num_steps
        self._checkpoint_seconds, self._report_step = checkpoint_seconds, report_step
        self._started = self._saved = time.monotonic()

    def progress_now(self) -> Progress:
        """The state with the time spent since this process took up the epoch."""
        spent = time.monotonic() - self._started
        return replace(self._progress, seconds=self._resumed.seconds + spent)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the learning rate."""
        del logs
        step = self._resumed.step + batch
        rate = rate_at(self._recipe, self._resumed, step, self._num_steps)
        self.model.optimizer.learning_rate = rate

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember the weights before `fit` puts averages in their place."""
        del epoch, logs
        self.last_weights = [variable.numpy() for variable in self.model.trainable_variables]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance by one step; `logs` are means over this process's steps of the epoch."""
        means = logs or {}
        loss, accuracy = float(means["loss"]), float(means["accuracy"])
        self._progress = after_step(self._resumed, batch + 1, loss, accuracy)
        self._report_step(self._progress, self._num_steps, self._progress.training_loss)
        if time.monotonic() - self._saved >= self._checkpoint_seconds:
            _save(self._run, self._checkpoint, self.progress_now())
            self._saved = time.monotonic()


def _close_epoch(
    run: Path,
    recipe: Recipe,
    model: keras.Model,
    progress: Progress,
    loss: float,
    accuracy: float,
) -> Progress:
    """Record an epoch, keep its weights if they are the best, move on."""
    progress = replace(progress, total_steps=progress.total_steps + progress.step)
    if accuracy > progress.best_accuracy:
        model.save_weights(best_weights(run, progress.epoch))
    line = {
        "epoch": progress.epoch,
        "stage": progress.stage,
        "image_size": recipe.stages[progress.stage].image_size,
        "learning_rate": progress.learning_rate,
        "loss": progress.training_loss,
        "accuracy": progress.training_accuracy,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
        "seconds": round(progress.seconds, 1),
    }
    append_history(run, line)
    _log_to_tensorboard(run, line)
    logger.info("epoch finished", extra=line)
    return after_epoch(progress, recipe, validation_loss=loss, validation_accuracy=accuracy)


def _save(run: Path, checkpoint: tf.train.Checkpoint, progress: Progress) -> None:
    """Write weights, optimizer and progress; a kill in between leaves the old ones valid."""
    name = f"state-{progress.epoch}-{progress.step}"
    folder = run / name
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint.write(str(folder / "checkpoint"))
    write_state(run, name, progress)


def _restore(run: Path, checkpoint: tf.train.Checkpoint) -> bool:
    """Read the last checkpoint; whether there was one."""
    state = read_state(run)
    if state is None:
        return False
    checkpoint.read(str(run / state[0] / "checkpoint")).assert_consumed()
    return True


def _log_to_tensorboard(run: Path, line: dict[str, Any]) -> None:
    with tf.summary.create_file_writer(str(run / "tensorboard")).as_default(step=line["epoch"]):
        for key, value in line.items():
            if isinstance(value, float):
                tf.summary.scalar(key, value)
