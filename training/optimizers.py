"""Adam with a rate for each part of a hybrid, and the moving averages that it keeps."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from training.architectures import backbone_variables
from training.config import Recipe


def build_optimizer(
    recipe: Recipe, model: keras.Model, max_momentum: float
) -> keras.optimizers.Optimizer:
    """The recipe's optimizer for a hybrid, its rate that of the first stage.

    Args:
        recipe: Rates, decay and momentum.
        model: The hybrid.
        max_momentum: That averages of weights may have (`progress.max_momentum`).
    """
    optimizer = DiscriminativeAdam(
        [variable.path for variable in backbone_variables(model)],
        recipe.backbone_rate,
        learning_rate=recipe.stages[0].learning_rate,
        weight_decay=recipe.weight_decay or None,
        use_ema=recipe.average_momentum > 0.0,
        ema_momentum=min(recipe.average_momentum, max_momentum),
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
def averaged(model: keras.Model) -> Iterator[None]:
    """Within, a model holds its moving averages, if it has them; then its last weights."""
    variables = model.trainable_variables
    last = [variable.numpy() for variable in variables]
    model.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, last, strict=True):
            variable.assign(value)
