"""Turn one row of a model's outputs into an answer, and an answer into a heatmap."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.domain.errors import ModelFaultError
from app.domain.golden import Outputs
from app.domain.heatmaps import (
    Heatmap,
    HeatmapMethod,
    attention_heatmap,
    choose_method,
    grad_cam_heatmap,
)
from app.domain.labels import CLASSES, DiagnosticClass
from app.domain.novelty import FeatureSpace


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer for one image.

    Attributes:
        probabilities: (7,) float32, summing to 1.
        predicted: The class of the highest probability.
        confidence: That probability; calibrated where the manifest has a calibration.
        class_activation: (7, 7, 7) float32, class, row, column; Grad-CAM is its positive part.
        attention: (7, 7) float32 in [0, 1]; None where the model has none.
        novelty: How far the picture lies outside of what the training images span; None where
            that was not measured.
        disagreement: Of an ensemble's members, in bits; None for one model's answer.
        members: Their own answers, in the order of `ensemble.json`.
    """

    probabilities: npt.NDArray[np.float32]
    predicted: DiagnosticClass
    confidence: float
    class_activation: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32] | None
    novelty: float | None = None
    disagreement: float | None = None
    members: tuple["Prediction", ...] = ()


def interpret(outputs: Outputs, row: int, space: FeatureSpace | None = None) -> Prediction:
    """Read one image's answer out of a batch's outputs.

    Args:
        outputs: Of the model.
        row: The image's place in the batch.
        space: What the training images span; None where that was not measured.

    Raises:
        ModelFaultError: A value that the answer is made of is not finite.
    """
    if not all(np.isfinite(values[row]).all() for values in outputs.values()):
        raise ModelFaultError(
            "The model gave values that are not finite; that is no answer. Report the request id "
            "to the service's operator."
        )
    # Copies: a view would keep the whole batch's arrays alive until the last image is answered.
    probabilities = outputs["probabilities"][row].copy()
    index = int(probabilities.argmax())
    attention = outputs["attention"][row].copy() if "attention" in outputs else None
    return Prediction(
        probabilities,
        CLASSES[index],
        float(probabilities[index]),
        outputs["class_activation"][row].copy(),
        attention,
        None if space is None else float(space.residual(outputs["features"][row][None])[0]),
    )


def explain(
    prediction: Prediction, method: HeatmapMethod | None = None, class_index: int | None = None
) -> Heatmap:
    """The heatmap of an answer; all of them come from its one forward pass (ADR-0001).

    Args:
        prediction: The answer.
        method: How to make it; None as in `choose_method`.
        class_index: The class to explain by Grad-CAM; None for the predicted one.

    Raises:
        HeatmapUnavailableError: Attention of a class, or of a model that has none.
    """
    attention = prediction.attention
    chosen = choose_method(method, class_index, has_attention=attention is not None)
    if attention is not None and chosen is HeatmapMethod.ATTENTION:
        return attention_heatmap(attention)
    if class_index is None:
        class_index = CLASSES.index(prediction.predicted)
    return grad_cam_heatmap(prediction.class_activation, class_index)
