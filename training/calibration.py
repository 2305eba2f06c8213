"""Make probabilities mean what they say, and choose thresholds; both on the validation part."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from app.domain.labels import CLASS_INDEX, CLASSES, Malignancy
from app.domain.measurements import Calibration, Interval, OperatingPoint
from training.metrics import calibration_error, measure_operating_points

REQUIRED_SENSITIVITIES: Final = (0.90, 0.95)

TARGETS: Final = {
    "melanoma": ["mel"],
    # Actinic keratoses are in one class with Bowen's disease, a carcinoma in situ.
    "malignancy": [c.label for c in CLASSES if c.malignancy is not Malignancy.BENIGN],
}
"""The classes of each operating point."""

_TEMPERATURE_BOUNDS: Final = (0.05, 20.0)
_UNMEASURED: Final = Interval(value=0.0, low=0.0, high=0.0)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def calibrate(
    logits: Floats, labels: Ints, groups: npt.NDArray[np.object_], *, seed: int
) -> Calibration:
    """Fit the temperature and choose the operating points.

    Args:
        logits: (num_images, 7) float32 of the validation part; logarithms of probabilities
            do as well.
        labels: (num_images,) int64 class indices.
        groups: (num_images,) lesion identifiers.
        seed: Of the bootstrap.
    """
    temperature = fit_temperature(logits, labels)
    probabilities = apply_temperature(logits, temperature)
    points = [
        OperatingPoint.model_validate(
            {
                "target": target,
                "labels": names,
                "required_sensitivity": required,
                "threshold": choose_threshold(
                    probabilities[:, [CLASS_INDEX[name] for name in names]].sum(axis=1),
                    np.isin(labels, [CLASS_INDEX[name] for name in names]),
                    required,
                ),
                "sensitivity": _UNMEASURED,
                "specificity": _UNMEASURED,
            }
        )
        for target, names in TARGETS.items()
        for required in REQUIRED_SENSITIVITIES
    ]
    return Calibration(
        temperature=temperature,
        num_images=len(labels),
        error_before=calibration_error(labels, apply_temperature(logits, 1.0)),
        error_after=calibration_error(labels, probabilities),
        operating_points=measure_operating_points(points, labels, probabilities, groups, seed=seed),
    )


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature of least cross-entropy, rounded to four digits.

    Args:
        logits: (num_images, 7) float32.
        labels: (num_images,) int64 class indices.
    """
    wide = logits.astype(np.float64)

    def cross_entropy(log_temperature: float) -> float:
        scores = log_softmax(wide / np.exp(log_temperature), axis=1)
        return float(-scores[np.arange(len(labels)), labels].mean())

    bounds = tuple(np.log(_TEMPERATURE_BOUNDS))
    return round(float(np.exp(minimize_scalar(cross_entropy, bounds=bounds).x)), 4)


def apply_temperature(logits: Floats, temperature: float) -> Floats:
    """Probabilities of logits: (num_images, 7) float32."""
    return np.asarray(softmax(logits.astype(np.float64) / temperature, axis=1), np.float32)


def choose_threshold(
    scores: Floats, is_target: npt.NDArray[np.bool_], required_sensitivity: float
) -> float:
    """The highest threshold that finds the required share of the target, rounded down.

    Args:
        scores: (num_images,) float32 in [0, 1]; positive at or above the threshold.
        is_target: (num_images,) bool.
        required_sensitivity: In [0, 1].

    Returns:
        In [0, 1], with six digits; 0 where there is no image of the target.
    """
    found = np.sort(scores[is_target])[::-1]
    if not len(found):
        return 0.0
    needed = max(1, int(np.ceil(required_sensitivity * len(found) - 1e-9)))
    return float(np.floor(min(1.0, float(found[needed - 1])) * 1e6) / 1e6)
