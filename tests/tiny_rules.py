"""Rules and ensembles for tiny artifacts."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from app.domain.ensemble import (
    ENSEMBLE_CARD_NAME,
    ENSEMBLE_NAME,
    EnsembleManifest,
    EnsembleMember,
)
from app.domain.labels import LABELS
from app.domain.manifest import read_manifest
from app.domain.measurements import Calibration, Interval, OperatingPoint
from app.domain.rules import (
    DecisionRules,
    NoveltyRule,
    Outcome,
    PredictionSetRule,
    ReferralPoint,
    ReferralRule,
    SetCoverage,
)
from tests.tiny_artifact import tiny_metrics
from training.run_folder import write_json

INTERVAL = Interval(value=0.5, low=0.4, high=0.6)
MALIGNANT = ["akiec", "bcc", "mel"]


def tiny_point(
    target: str = "malignancy", labels: Sequence[str] = MALIGNANT, threshold: float = 0.3
) -> OperatingPoint:
    """An operating point of 90 % sensitivity."""
    return OperatingPoint.model_validate(
        {
            "target": target,
            "labels": list(labels),
            "required_sensitivity": 0.9,
            "threshold": threshold,
            "sensitivity": INTERVAL,
            "specificity": INTERVAL,
        }
    )


def tiny_calibration(*points: OperatingPoint, temperature: float = 1.0) -> Calibration:
    """A calibration with some operating points."""
    return Calibration(
        temperature=temperature,
        num_images=14,
        error_before=0.2,
        error_after=0.1,
        operating_points=list(points),
    )


def tiny_rules(
    *,
    set_threshold: float = 0.2,
    max_set_size: int = 2,
    min_confidence: float = 0.5,
    novelty: float = 1.0,
    num_components: int | None = 1,
    max_disagreement: float | None = None,
) -> DecisionRules:
    """Rules whose figures mean nothing."""
    measured = SetCoverage(
        coverage=INTERVAL, per_class=dict.fromkeys(LABELS, 0.5), mean_size=1.5, singletons=0.5
    )
    return DecisionRules(
        git_commit="0" * 40,
        prediction_sets=[
            PredictionSetRule(
                coverage=coverage,
                thresholds=dict.fromkeys(LABELS, threshold),
                pooled=pooled,
                measured=measured,
            )
            for coverage, threshold, pooled in (
                (0.9, set_threshold, list[str]()),
                (0.95, set_threshold / 2, ["df"]),
            )
        ],
        max_set_size=max_set_size,
        referral=ReferralRule(
            required_accuracy=0.92,
            min_confidence=min_confidence,
            referred=INTERVAL,
            accuracy=INTERVAL,
            curve=[ReferralPoint(referred=0.0, accuracy=0.5)],
        ),
        referring_sensitivity=0.9,
        max_disagreement=max_disagreement,
        novelty=NoveltyRule(
            num_components=num_components,
            threshold=novelty,
            accepted_validation=0.95,
            accepted_test=0.95,
        ),
        outcome=Outcome(
            reported=0.5,
            referred=0.4,
            rejected=0.1,
            accuracy=INTERVAL,
            num_malignant=6,
            num_malignant_reported_benign=1,
            reported_benign_by_class={"akiec": 0, "bcc": 0, "mel": 1},
            reasons={"malignancy": 0.4},
        ),
    )


def write_tiny_ensemble(
    models: Path,
    members: Sequence[Path],
    weights: Sequence[float],
    *,
    calibration: Calibration | None = None,
    rules: DecisionRules | None = None,
) -> Path:
    """Write `ensemble.json` and its card for artifacts `models/<name>/<version>/`."""
    card = b"# Tiny ensemble\n"
    (models / ENSEMBLE_CARD_NAME).write_bytes(card)
    manifests = [read_manifest(folder) for folder in members]
    ensemble = EnsembleManifest(
        git_commit="0" * 40,
        members=[
            EnsembleMember(
                name=manifest.name, version=manifest.version, digest=digest, weight=weight
            )
            for (manifest, digest), weight in zip(manifests, weights, strict=True)
        ],
        calibration=calibration or tiny_calibration(tiny_point(), temperature=2.0),
        metrics=tiny_metrics(),
        decision=rules or tiny_rules(num_components=None, max_disagreement=0.5),
        card_sha256=sha256(card).hexdigest(),
    )
    write_json(models / ENSEMBLE_NAME, ensemble.model_dump(mode="json"))
    return models / ENSEMBLE_NAME
