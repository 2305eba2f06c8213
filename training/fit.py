"""Train a recipe; a run killed at any moment goes on from its last checkpoint."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.architectures import build_hybrid
from training.artifacts import assign_stored, load_answers, load_lessons
from training.checkpoints import make_checkpoint, restore, save
from training.cluster import (
    LEFT_ALONE,
    agree,
    is_chief,
    local_strategy,
    num_processes,
    of_chief,
    wait_for_all,
)
from training.config import Precision, Recipe
from training.data import (
    class_weights,
    evaluation_batches,
    load_examples,
    steps_per_epoch,
    training_batches,
)
from training.distillation import DistilledHybrid, answers_alone, mirrored
from training.hardware import describe_hardware
from training.interpolate import interpolate
from training.optimizers import averaged, build_optimizer
from training.prepare import Part, PreparedData
from training.progress import (
    Progress,
    after_epoch,
    after_step,
    is_finished,
    max_momentum,
    rate_at,
    start,
)
from training.provenance import running_code
from training.run_folder import (
    CHECKPOINT_SECONDS,
    RESULT_NAME,
    RunError,
    RunResult,
    append_history,
    best_weights,
    check_claim,
    claim,
    read_result,
    read_state,
    record_process,
    write_result,
)
from training.steps import Step, Validation, limit_momentum, share, synchronise, train_step

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
        strategy: How to spread a step over devices; `local_strategy`'s where it is None.

    Returns:
        The result, also written to `result.json`; of a run that is finished what stands there.

    Raises:
        RunError: The folder belongs to another recipe or dataset, the data was split by another
            protocol, its checkpoint is of an earlier version; or another process of the cluster
            ended, has other code, or another folder.
        ArtifactError: The teacher or the initial model is not intact.
        ValueError: The initial model's weights do not fit, or the devices cannot share the
            batches.
    """
    if (run / RESULT_NAME).exists():  # what did not train is not to be called its maker
        check_claim(run, recipe, data)
        return read_result(run)
    strategy = strategy or local_strategy()
    if recipe.batch_size % strategy.num_replicas_in_sync:
        raise ValueError(
            f"Batches of {recipe.batch_size} cannot be shared by "
            f"{strategy.num_replicas_in_sync} devices: train on as many as divide them."
        )
    try:
        progress = _enter(recipe, data, run, strategy)
        keras.utils.set_random_seed(recipe.seed)
        keras.mixed_precision.set_global_policy(recipe.precision.value)
        while not is_finished(progress, recipe):
            progress = _run_stage(
                recipe, data, run, progress, strategy, checkpoint_seconds, report_step
            )
        accuracy = progress.best_accuracy
        if recipe.initial_share and is_chief(strategy):
            accuracy = interpolate(recipe, data, run, progress.best_epoch)
        (accuracy,) = of_chief(strategy, [accuracy])
        result = RunResult(
            steps=progress.total_steps,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
            best_validation_accuracy=accuracy,
            seconds=round(progress.seconds, 1),
            hardware=_describe_all(strategy),
        )
        if is_chief(strategy):
            write_result(run, result)
        wait_for_all(strategy)  # or the chief would miss the others before it has written
    except LEFT_ALONE as error:
        if num_processes(strategy) == 1:
            raise
        raise RunError(
            "Another process of TF_CONFIG has ended, and so does this one. Start all of them "
            f"again: they go on from the last checkpoint. TensorFlow says: {str(error)[:200]}"
        ) from error
    finally:
        keras.mixed_precision.set_global_policy(Precision.FLOAT32.value)
    return result


def _enter(
    recipe: Recipe, data: PreparedData, run: Path, strategy: tf.distribute.Strategy
) -> Progress:
    """Claim the folder, with all processes of the cluster, and say where the run is."""
    code, chief = running_code(), is_chief(strategy)
    if chief:
        claim(run, recipe, data)
        record_process(run, code.git_commit, clean=code.clean)
    wait_for_all(strategy)
    if not chief:
        check_claim(run, recipe, data)
    state = read_state(run)
    progress = start(recipe) if state is None else state[1]
    agree(
        strategy,
        (progress.stage, progress.epoch, progress.step, progress.total_steps),
        f"The first process sees another state of {run} than this one: name a folder on a file "
        "system that all of them reach.",
    )
    agree(
        strategy,
        (int((code.git_commit or "0")[:12], 16), code.clean),
        "The first process runs other code than this one: check out the same commit everywhere.",
    )
    return progress


def _describe_all(strategy: tf.distribute.Strategy) -> str:
    processes = num_processes(strategy)
    first = describe_hardware()
    return first if processes == 1 else f"{processes} processes, the first with {first}"


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
    stage, replicas = progress.stage, strategy.num_replicas_in_sync
    image_size = recipe.stages[stage].image_size
    train = load_examples(data, Part.TRAIN, image_size, metadata=recipe.metadata)
    num_steps = steps_per_epoch(
        len(train), recipe.batch_size, recipe.stages[stage].steps_per_epoch, replicas
    )
    # XLA takes longer to compile these graphs for a processor than it saves there.
    compiled = bool(tf.config.list_physical_devices("GPU"))
    with strategy.scope():
        hybrid = build_hybrid(recipe, image_size)
        model = _compile(hybrid, recipe, max_momentum(recipe, stage, num_steps), compiled=compiled)
        synchronise(model, strategy)
    checkpoint = make_checkpoint(model)
    if not restore(run, checkpoint) and recipe.initial_model:
        assign_stored(hybrid, Path(recipe.initial_model))
    wait_for_all(strategy)  # the first to save deletes what the others read
    validation = load_examples(data, Part.VALIDATION, image_size, metadata=recipe.metadata)
    measured = Validation(
        model, evaluation_batches(validation, recipe.batch_size), compiled=compiled
    )
    trainer = _StageTrainer(
        recipe,
        run,
        strategy,
        checkpoint,
        train_step(model, strategy, compiled=compiled),
        num_steps,
        checkpoint_seconds,
        report_step,
    )
    weights = class_weights(train.labels, recipe.class_weight_exponent)
    while progress.stage == stage:
        batches = training_batches(
            train,
            recipe,
            weights,
            epoch=progress.epoch,
            steps=range(progress.step, num_steps),
            num_replicas=replicas,
        )
        began = time.monotonic() - progress.seconds
        progress = trainer.train(progress, share(strategy, batches))
        if is_chief(strategy):  # validation takes its time, too
            save(run, checkpoint, progress)
        with averaged(model):
            found = measured.measure() if is_chief(strategy) else (0.0, 0.0)
            loss, accuracy = of_chief(strategy, found)
            progress = replace(progress, seconds=time.monotonic() - began)
            progress = _close_epoch(run, recipe, strategy, hybrid, progress, loss, accuracy)
        if is_chief(strategy):
            save(run, checkpoint, progress)
        wait_for_all(strategy)  # the next stage begins with what was saved
    return progress


def _compile(
    hybrid: keras.Model, recipe: Recipe, max_momentum: float, *, compiled: bool
) -> keras.Model:
    """A hybrid ready to be trained, or what wraps it and shares its layers."""
    limit_momentum(hybrid, max_momentum)
    model = _with_teacher(hybrid, recipe, compiled=compiled) if recipe.teacher else hybrid
    model.compile(
        optimizer=build_optimizer(recipe, model, max_momentum),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.label_smoothing
        ),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _with_teacher(hybrid: keras.Model, recipe: Recipe, *, compiled: bool) -> DistilledHybrid:
    folder = Path(recipe.teacher)
    hint_channels: tuple[int, ...] = ()
    if recipe.hint_weight:
        lessons, hint_channels = load_lessons(folder, compiled=compiled)
    else:
        teacher = load_answers(folder, compiled=compiled)
        lessons = answers_alone(mirrored(teacher) if recipe.teacher_mirrored else teacher)
    return DistilledHybrid(
        hybrid,
        lessons,
        weight=recipe.distillation_weight,
        temperature=recipe.distillation_temperature,
        hint_weight=recipe.hint_weight,
        hint_channels=hint_channels,
    )


@dataclass(frozen=True)
class _StageTrainer:
    """Sets the rate of each step, counts, writes checkpoints in mid-epoch, tells the caller."""

    recipe: Recipe
    run: Path
    strategy: tf.distribute.Strategy
    checkpoint: tf.train.Checkpoint
    step: Step
    num_steps: int
    checkpoint_seconds: float
    report_step: Callable[[Progress, int, float], None]

    def train(self, resumed: Progress, batches: Iterable[Any]) -> Progress:
        """Take up an epoch and go on to its last step.

        Args:
            resumed: Where it is taken up; at its end, where a kill came before validation.
            batches: From `share`, the first of them that of step `resumed.step`.
        """
        progress = resumed
        began = saved = time.monotonic()
        iterator = iter(batches)
        while progress.step < self.num_steps:
            rate = rate_at(self.recipe, progress, progress.step, self.num_steps)
            self.checkpoint.optimizer.learning_rate = rate
            loss, accuracy = self.step(iterator)
            now = time.monotonic()
            progress = replace(
                after_step(progress, float(loss), float(accuracy)),
                seconds=resumed.seconds + now - began,
            )
            self.report_step(progress, self.num_steps, progress.training_loss)
            if is_chief(self.strategy) and now - saved >= self.checkpoint_seconds:
                save(self.run, self.checkpoint, progress)
                saved = now
        return progress


def _close_epoch(
    run: Path,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    hybrid: keras.Model,
    progress: Progress,
    loss: float,
    accuracy: float,
) -> Progress:
    """Record an epoch, keep its weights if they are the best, move on."""
    progress = replace(progress, total_steps=progress.total_steps + progress.step)
    following = after_epoch(progress, recipe, validation_loss=loss, validation_accuracy=accuracy)
    if not is_chief(strategy):
        return following
    if accuracy > progress.best_accuracy:
        hybrid.save_weights(best_weights(run, progress.epoch))
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
    return following


def _log_to_tensorboard(run: Path, line: dict[str, Any]) -> None:
    with tf.summary.create_file_writer(str(run / "tensorboard")).as_default(step=line["epoch"]):
        for key, value in line.items():
            if isinstance(value, float):
                tf.summary.scalar(key, value)
