"""Turn one row of a model's outputs into an answer with its heatmap."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.domain.errors import ModelFaultError
from app.domain.golden import Outputs
from app.domain.heatmaps import Heatmap, attention_heatmap, grad_cam_heatmap
from app.domain.labels import CLASSES, DiagnosticClass


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer for one image.

    Attributes:
        probabilities: (7,) float32, summing to 1.
        predicted: The class of the highest probability.
        confidence: That probability; calibrated where the manifest has a calibration.
        heatmap: Attention where the model has it, else Grad-CAM of the predicted class.
    """

    probabilities: npt.NDArray[np.float32]
    predicted: DiagnosticClass
    confidence: float
    heatmap: Heatmap


def interpret(outputs: Outputs, row: int) -> Prediction:
    """Read one image's answer out of a batch's outputs.

    Raises:
        ModelFaultError: A value that the answer is made of is not finite.
    """
    if not all(np.isfinite(values[row]).all() for values in outputs.values()):
        raise ModelFaultError(
            "The model gave values that are not finite; that is no answer. Report the request id "
            "to the service's operator."
        )
    probabilities = outputs["probabilities"][row]
    index = int(probabilities.argmax())
    if "attention" in outputs:
        heatmap = attention_heatmap(outputs["attention"][row])
    else:
        heatmap = grad_cam_heatmap(outputs["class_activation"][row], index)
    return Prediction(probabilities, CLASSES[index], float(probabilities[index]), heatmap)
