"""Where a run stands, and the rules that move it; pure, so that a killed run can resume.

Keras's EarlyStopping and ReduceLROnPlateau forget their counters when a process dies;
these follow the same rules and are saved with every checkpoint.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from training.config import Recipe, Schedule

MIN_PLATEAU_IMPROVEMENT: Final = 1e-4
"""`min_delta` of Keras's ReduceLROnPlateau."""

LAG_SHARE: Final = 0.1
"""Of a stage's steps, what a warm-up may take and a moving average may reach back, at most.

Over a stage of 60 steps a warm-up of 100 would end at a sixth of the rate, and averages of
momentum 0.99 would still be the stage before, at its image size, by half (0.99^60).
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything a run must know to go on, beside weights and optimizer.

    Attributes:
        stage: Index of the current stage.
        epoch: Epochs completed over all stages; also the index of the current one.
        stage_epoch: Epochs completed in this stage.
        step: Steps taken in the current epoch.
        learning_rate: Of the current epoch, before the schedule within it (`rate_at`).
        training_loss: Mean over the current epoch's steps.
        training_accuracy: Mean over the current epoch's steps.
        best_loss: Lowest validation loss of this stage.
        epochs_since_best: Since then.
        plateau_loss: Lowest validation loss of this stage, ignoring tiny improvements.
        epochs_since_drop: Since then, or since the rate was lowered.
        best_accuracy: Highest validation accuracy of this stage.
        best_epoch: Epoch of `best_accuracy`; its weights are the run's result.
        total_steps: Steps of all completed epochs.
        seconds: Spent training and validating, from the first process that took the run up to the
            last; the chief's, where several share it.
    """

    stage: int
    epoch: int
    stage_epoch: int
    step: int
    learning_rate: float
    training_loss: float = 0.0
    training_accuracy: float = 0.0
    best_loss: float = math.inf
    epochs_since_best: int = 0
    plateau_loss: float = math.inf
    epochs_since_drop: int = 0
    best_accuracy: float = -math.inf
    best_epoch: int = -1
    total_steps: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values; infinities, which JSON lacks, as None."""
        return {
            key: None if isinstance(value, float) and math.isinf(value) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """Rebuild a state from `to_json`'s output."""
        return cls(**{key: value for key, value in values.items() if value is not None})


def start(recipe: Recipe) -> Progress:
    """The state before the first step."""
    return Progress(0, 0, 0, 0, recipe.stages[0].learning_rate)


def is_finished(progress: Progress, recipe: Recipe) -> bool:
    """Whether no stage is left."""
    return progress.stage >= len(recipe.stages)


def max_lag(recipe: Recipe, stage: int, num_steps: int) -> float:
    """`LAG_SHARE` of a stage in steps, at least 1.

    Args:
        recipe: Stages.
        stage: Index.
        num_steps: Steps of each epoch of the stage.
    """
    return max(1.0, LAG_SHARE * recipe.stages[stage].max_epochs * num_steps)


def max_momentum(recipe: Recipe, stage: int, num_steps: int) -> float:
    """Of a stage's moving averages, which reach back `1 / (1 - momentum)` steps.

    Args:
        recipe: Stages.
        stage: Index.
        num_steps: Steps of each epoch of the stage.
    """
    return 1.0 - 1.0 / max_lag(recipe, stage, num_steps)


def rate_at(recipe: Recipe, progress: Progress, step: int, num_steps: int) -> float:
    """The learning rate of one step.

    Args:
        recipe: Schedule and stages.
        progress: The state of the step's epoch.
        step: Of the epoch, from 0.
        num_steps: Steps of each epoch of the stage.
    """
    if recipe.schedule is Schedule.PLATEAU:
        return progress.learning_rate
    done = progress.stage_epoch * num_steps + step
    total = recipe.stages[progress.stage].max_epochs * num_steps
    warmup = min(recipe.warmup_steps, max_lag(recipe, progress.stage, num_steps))
    warm = min(1.0, (done + 1) / max(1.0, warmup))
    return progress.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * done / total))


def after_epoch(
    progress: Progress, recipe: Recipe, *, validation_loss: float, validation_accuracy: float
) -> Progress:
    """Apply early stopping, the plateau rule and the change of stage.

    Args:
        progress: The state at the epoch's last step.
        recipe: Patience, factor and stages.
        validation_loss: Mean cross-entropy of the validation part.
        validation_accuracy: In [0, 1].

    Returns:
        The state of the next epoch; of the next stage where this one is over.
    """
    improved = validation_loss < progress.best_loss
    since_best = 0 if improved else progress.epochs_since_best + 1
    off_plateau = validation_loss < progress.plateau_loss - MIN_PLATEAU_IMPROVEMENT
    since_drop = 0 if off_plateau else progress.epochs_since_drop + 1
    learning_rate = progress.learning_rate
    if recipe.schedule is Schedule.PLATEAU and since_drop >= recipe.plateau_patience:
        learning_rate *= recipe.plateau_factor
        since_drop = 0
    better = validation_accuracy > progress.best_accuracy
    following = replace(
        progress,
        epoch=progress.epoch + 1,
        stage_epoch=progress.stage_epoch + 1,
        step=0,
        learning_rate=learning_rate,
        training_loss=0.0,
        training_accuracy=0.0,
        best_loss=validation_loss if improved else progress.best_loss,
        epochs_since_best=since_best,
        plateau_loss=validation_loss if off_plateau else progress.plateau_loss,
        epochs_since_drop=since_drop,
        best_accuracy=validation_accuracy if better else progress.best_accuracy,
        best_epoch=progress.epoch if better else progress.best_epoch,
    )
    stage_over = (
        since_best >= recipe.early_stopping_patience
        or following.stage_epoch >= recipe.stages[progress.stage].max_epochs
    )
    return _next_stage(following, recipe) if stage_over else following


def _next_stage(progress: Progress, recipe: Recipe) -> Progress:
    stage = progress.stage + 1
    if stage >= len(recipe.stages):
        return replace(progress, stage=stage)
    # Accuracy at another image size is another quantity: the best starts anew.
    return Progress(
        stage,
        progress.epoch,
        0,
        0,
        recipe.stages[stage].learning_rate,
        total_steps=progress.total_steps,
        seconds=progress.seconds,
    )


def after_step(progress: Progress, loss: float, accuracy: float) -> Progress:
    """The state one step on; `training_loss` and `training_accuracy` are means of the epoch."""
    step = progress.step + 1
    return replace(
        progress,
        step=step,
        training_loss=(progress.training_loss * progress.step + loss) / step,
        training_accuracy=(progress.training_accuracy * progress.step + accuracy) / step,
    )
