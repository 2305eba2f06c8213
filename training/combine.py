"""Make an ensemble: all that is chosen on the validation part, figures on the test part.

```
OUTPUT/ensemble.json
OUTPUT/ENSEMBLE_CARD.md
```
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from app.domain.decision import disagreement
from app.domain.ensemble import (
    ENSEMBLE_CARD_NAME,
    ENSEMBLE_NAME,
    EnsembleManifest,
    EnsembleMember,
    pool,
)
from app.domain.images import RgbImage
from app.inference.models import LoadedModel
from training.calibration import calibrate
from training.cards import ensemble_card
from training.evaluate import measure_all
from training.prepare import Part, PreparedData
from training.rules import Answers, make_rules
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
    *,
    version: int,
    git_commit: str,
) -> EnsembleManifest:
    """Calibrate and measure an ensemble, and write it with its card.

    Args:
        folders: `<name>/<version>/` of each member; all trained on this very split.
        data: The dataset.
        output: `ensemble.json`, in the folder of all artifacts; it must not exist.
        report_progress: Called with (images done, images in all), for each member and part.
        version: Of the ensemble.
        git_commit: Of this code, 40 hexadecimal digits.

    Raises:
        EnsembleError: It exists, there is one member only, a member has no rules, or the service
            would not find it beside the ensemble.
        ValueError: A member was trained on another split.
        ArtifactError: A member must not be served.
    """
    if output.name != ENSEMBLE_NAME:
        raise EnsembleError(
            f"An ensemble is served from a file {ENSEMBLE_NAME} alone; name another folder in "
            f"place of {output.name}."
        )
    if output.exists():
        raise EnsembleError(f"{output} exists; delete it if its figures may be replaced.")
    for folder in folders:
        if folder.resolve().parent.parent != output.resolve().parent:
            raise EnsembleError(
                f"{folder} does not lie in {output.parent}, where the service would look for it; "
                f"name --output FOLDER/{ENSEMBLE_NAME} with the folder of all members."
            )
    models = [load_artifact(folder, fast=True) for folder in folders]
    names = [model.manifest.name for model in models]
    if len(set(names)) != len(folders) or len(models) < 2:
        raise EnsembleError("An ensemble needs at least two models of different names.")
    for model in models:
        require_split(model.manifest, data)
        if model.manifest.decision is None:
            raise EnsembleError(
                f"{model.qualified_name} has no rules; run `python -m training decide` on it."
            )

    validation, test = (
        [_ask(model, data, part, report_progress) for model in models]
        for part in (Part.VALIDATION, Part.TEST)
    )
    rows = data.rows(Part.VALIDATION)
    own = {name: answer.probabilities for name, answer in zip(names, validation, strict=True)}
    weights = fit_weights(own, data.labels(rows))
    pooled = np.log(np.maximum(pool(own, weights, 1.0), _SMALLEST))
    calibration = calibrate(pooled, data.labels(rows), data.lesions(rows), seed=data.seed)
    chosen, measured = (
        _combine(dict(zip(names, answers, strict=True)), weights, calibration.temperature)
        for answers in (validation, test)
    )
    ensemble = EnsembleManifest(
        version=version,
        git_commit=git_commit,
        members=[
            EnsembleMember(
                name=model.manifest.name,
                version=model.manifest.version,
                digest=model.digest,
                weight=weights[model.manifest.name],
            )
            for model in models
        ],
        calibration=calibration,
        metrics=measure_all(Part.TEST, data, measured.probabilities, calibration),
        decision=make_rules(
            chosen,
            measured,
            calibration,
            num_components=None,
            git_commit=git_commit,
            seed=data.seed,
        ),
        card_sha256="0" * 64,
    )
    card = ensemble_card(ensemble).encode()
    ensemble = ensemble.model_copy(update={"card_sha256": sha256(card).hexdigest()})
    (output.parent / ENSEMBLE_CARD_NAME).write_bytes(card)
    write_json(output, ensemble.model_dump(mode="json"))
    return ensemble


def _ask(
    model: LoadedModel,
    data: PreparedData,
    part: Part,
    report_progress: Callable[[int, int], None],
) -> Answers:
    """One member's answers; its scores of novelty are divided by its threshold."""
    rules = model.manifest.decision
    threshold = rules.novelty.threshold if rules else 1.0

    def answer(images: RgbImage) -> npt.NDArray[np.float32]:
        return np.stack(
            [
                np.append(found.probabilities, (found.novelty or 0.0) / threshold)
                for found in model.predict_batch(images)
            ]
        ).astype(np.float32)

    rows = data.rows(part)
    both = predict_all(answer, (data.images[row] for row in rows), len(rows), report_progress)
    return Answers(both[:, :-1], data.labels(rows), data.lesions(rows), both[:, -1])


def _combine(answers: dict[str, Answers], weights: dict[str, float], temperature: float) -> Answers:
    """What the members' answers make together, as `app.inference.ensembles` does it."""
    own = {name: answer.probabilities for name, answer in answers.items()}
    first = next(iter(answers.values()))
    return Answers(
        pool(own, weights, temperature),
        first.labels,
        first.groups,
        np.mean([answer.novelty for answer in answers.values()], axis=0),
        disagreement(list(own.values())),
    )


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
