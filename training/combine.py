"""Make an ensemble: weights and temperature on the validation part, figures on the test part."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from app.domain.ensemble import EnsembleManifest, EnsembleMember, pool
from training.calibration import calibrate
from training.evaluate import measure_all
from training.prepare import Part, PreparedData
from training.run_folder import write_json
from training.served import load_artifact, predict_all, require_split

_START: Final = 1.0
_UPPER: Final = 5.0
_SMALLEST: Final = 1e-12


class EnsembleError(Exception):
    """An ensemble that cannot be made as asked."""


def combine(
    folders: list[Path],
    data: PreparedData,
    output: Path,
    report_progress: Callable[[int, int], None],
) -> EnsembleManifest:
    """Calibrate and measure an ensemble, and write it.

    Args:
        folders: `<name>/<version>/` of each member; all trained on this very split.
        data: The dataset.
        output: `ensemble.json`, in the folder of all artifacts; it must not exist.
        report_progress: Called with (images done, images in all), for each member and part.

    Raises:
        EnsembleError: It exists, or there is one member only.
        ValueError: A member was trained on another split.
        ArtifactError: A member must not be served.
    """
    if output.exists():
        raise EnsembleError(f"{output} exists; delete it if its figures may be replaced.")
    models = {model.manifest.name: model for model in map(load_artifact, folders)}
    if len(models) != len(folders) or len(models) < 2:
        raise EnsembleError("An ensemble needs at least two models of different names.")
    for model in models.values():
        require_split(model.manifest, data)

    def answers(part: Part) -> dict[str, npt.NDArray[np.float32]]:
        rows = data.rows(part)
        return {
            name: predict_all(
                lambda images, model=model: model.engine.predict(images)["probabilities"],  # type: ignore[misc]
                (data.images[row] for row in rows),
                len(rows),
                report_progress,
            )
            for name, model in models.items()
        }

    validation, rows = answers(Part.VALIDATION), data.rows(Part.VALIDATION)
    weights = fit_weights(validation, data.labels(rows))
    pooled = np.log(np.maximum(pool(validation, weights, 1.0), _SMALLEST))
    calibration = calibrate(pooled, data.labels(rows), data.lesions(rows), seed=data.seed)
    test = pool(answers(Part.TEST), weights, calibration.temperature)
    ensemble = EnsembleManifest(
        members=[
            EnsembleMember(
                name=name,
                version=model.manifest.version,
                digest=model.digest,
                weight=weights[name],
            )
            for name, model in models.items()
        ],
        calibration=calibration,
        metrics=measure_all(Part.TEST, data, test, calibration),
    )
    write_json(output, ensemble.model_dump(mode="json"))
    return ensemble


def fit_weights(
    probabilities: dict[str, npt.NDArray[np.float32]], labels: npt.NDArray[np.int64]
) -> dict[str, float]:
    """The weights of least cross-entropy, none negative, with four digits.

    Args:
        probabilities: (num_images, 7) float32 by the model's name.
        labels: (num_images,) int64 class indices.

    Returns:
        By name; they sum to 1 (up to rounding). Their scale is the temperature's to find.
    """
    scores = np.stack([np.log(np.maximum(p, _SMALLEST)) for p in probabilities.values()])
    scores = scores.astype(np.float64)

    def cross_entropy(weights: npt.NDArray[np.float64]) -> float:
        pooled = np.tensordot(weights, scores, axes=1)
        top = pooled.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(pooled - top).sum(axis=1)) + top[:, 0]
        return float((log_sum - pooled[np.arange(len(labels)), labels]).mean())

    count = len(scores)
    found = minimize(
        cross_entropy,
        np.full(count, _START / count),
        method="L-BFGS-B",
        bounds=[(0.0, _UPPER)] * count,
    ).x
    shares = found / found.sum()
    return {name: round(float(w), 4) for name, w in zip(probabilities, shares, strict=True)}
