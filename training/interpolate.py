"""Between the weights that a run has learnt and those that it began with (WiSE-FT).

What goes on learning gains where it is taught, and loses some of what it knew. Between both sets of
weights lies a network that often answers better than either (Wortsman et al., "Robust fine-tuning
of zero-shot models", CVPR 2022, section 3).
"""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from training.architectures import build_hybrid
from training.artifacts import assign_stored
from training.config import Precision, Recipe
from training.data import evaluation_batches, load_examples
from training.prepare import Part, PreparedData
from training.run_folder import best_weights, interpolated_weights


def interpolate(recipe: Recipe, data: PreparedData, run: Path, best_epoch: int) -> float:
    """Write the weights that a recipe with an `initial_share` is judged by.

    Args:
        recipe: Of the run; its initial model must be the one that the run began with.
        data: The run's.
        run: Its folder, with the weights of `best_epoch`.
        best_epoch: Of the last stage.

    Returns:
        Their accuracy on the validation part, at the last stage's image size.

    Raises:
        ArtifactError: The initial model is not intact.
    """
    keras.mixed_precision.set_global_policy(Precision.FLOAT32.value)
    image_size = recipe.stages[-1].image_size
    model = build_hybrid(replace(recipe, backbone_weights="none", frozen_layers=0), image_size)
    model.load_weights(best_weights(run, best_epoch))
    learnt = [variable.numpy() for variable in model.weights]
    assign_stored(model, Path(recipe.initial_model))
    for variable, value in zip(model.weights, learnt, strict=True):
        share = recipe.initial_share
        variable.assign(share * variable.numpy() + (1.0 - share) * value)
    written = interpolated_weights(run)
    scratch = written.with_name(f"new-{written.name}")
    model.save_weights(scratch)
    scratch.replace(written)
    examples = load_examples(data, Part.VALIDATION, image_size, metadata=recipe.metadata)
    logits = model.predict(evaluation_batches(examples, recipe.batch_size), verbose=0)
    return float(np.mean(logits.argmax(axis=-1) == examples.labels))
