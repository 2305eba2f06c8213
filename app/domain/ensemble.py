"""`ensemble.json`: several models that answer as one, calibrated as a combination.

The members' probabilities are pooled log-linearly (Genest and Zidek, "Combining Probability
Distributions", Statistical Science 1986): the weighted mean of their logarithms, divided by
the ensemble's temperature, through a softmax.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from app.domain.errors import ManifestError, is_exhaustion
from app.domain.manifest import Sha256
from app.domain.measurements import Calibration, GitCommit, Metrics, Strict
from app.domain.rules import DecisionRules

ENSEMBLE_NAME: Final = "ensemble.json"
ENSEMBLE_CARD_NAME: Final = "ENSEMBLE_CARD.md"
_MAX_BYTES: Final = 1 << 20
_SMALLEST: Final = 1e-12
"""Probabilities below it count as it, so that one member alone cannot exclude a class."""


class EnsembleMember(Strict):
    """A model of an ensemble.

    Attributes:
        name: Of the model.
        version: Exactly this one.
        digest: SHA-256 of its `manifest.json`, which fixes every other byte.
        weight: Its share; all shares sum to 1.
    """

    name: str
    version: Annotated[int, Field(ge=1)]
    digest: Sha256
    weight: Annotated[float, Field(ge=0.0, le=1.0)]


class EnsembleManifest(Strict):
    """The whole of `ensemble.json`.

    Attributes:
        schema_version: Of this schema.
        name: The ensemble's name in the API, which no model may have.
        version: Counts up.
        git_commit: Commit of the code that made it.
        members: Models and their weights.
        calibration: Of the combination, on the validation part.
        metrics: Of the combination, on the test part.
        decision: When an answer is reported.
        card_sha256: SHA-256 of `ENSEMBLE_CARD.md` beside it.
    """

    schema_version: Literal[1] = 1
    name: Literal["ensemble"] = "ensemble"
    version: Annotated[int, Field(ge=1)] = 1
    git_commit: GitCommit
    members: Annotated[list[EnsembleMember], Field(min_length=2)]
    calibration: Calibration
    metrics: Metrics
    decision: DecisionRules
    card_sha256: Sha256

    @property
    def title(self) -> str:
        """For people."""
        return "Ensemble of " + ", ".join(f"{m.name}@{m.version}" for m in self.members)

    @model_validator(mode="after")
    def _check(self) -> "EnsembleManifest":
        if abs(sum(member.weight for member in self.members) - 1.0) > 1e-3:
            raise ValueError("the members' weights must sum to 1")
        if len({member.name for member in self.members}) < len(self.members):
            raise ValueError("members must be of different names")
        if self.metrics.part != "test":
            raise ValueError(f"metrics must be of the test part, received {self.metrics.part}")
        if self.decision.max_disagreement is None:
            raise ValueError("decision.max_disagreement must be set for an ensemble")
        self.decision.check_calibration(self.calibration)
        return self


def read_ensemble(path: Path) -> EnsembleManifest:
    """Read and validate an ensemble.

    Raises:
        ManifestError: Missing, unreadable or not of the schema.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ManifestError(f"{path}: larger than {_MAX_BYTES:,} bytes.")
        return EnsembleManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise ManifestError(f"{path}: cannot be read: {error}.") from error
    except ValidationError as error:
        raise ManifestError(f"{path}: {error}") from error


def pool(
    probabilities: Mapping[str, npt.NDArray[np.float32]],
    weights: Mapping[str, float],
    temperature: float,
) -> npt.NDArray[np.float32]:
    """Combine the answers of some models.

    Args:
        probabilities: (batch, 7) float32 by the model's name.
        weights: By the model's name, all of them.
        temperature: What the weighted mean is divided by.

    Returns:
        (batch, 7) float32, each row sums to 1.

    Raises:
        ValueError: The names differ.
    """
    if set(probabilities) != set(weights):
        raise ValueError(
            f"answers are of {sorted(probabilities)}, the ensemble's models are {sorted(weights)}."
        )
    scores = sum(
        weights[name] * np.log(np.maximum(values.astype(np.float64), _SMALLEST))
        for name, values in probabilities.items()
    )
    scores = np.asarray(scores) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    odds = np.exp(scores)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)
