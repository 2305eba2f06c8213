"""From the domain's objects to the API's schemas."""

import numpy as np
import numpy.typing as npt

from app.api.answer_schemas import (
    AnswerSchema,
    Coding,
    DecisionSchema,
    DiagnosticClassSchema,
    EnsembleSchema,
    MemberSchema,
    ModelReference,
    OperatingPointSchema,
    OutOfDistributionSchema,
    PredictionSetSchema,
    QualitySchema,
    UncertaintySchema,
)
from app.domain.decision import Decision
from app.domain.labels import LABELS, DiagnosticClass
from app.domain.uncertainty import NUM_VIEWS, Uncertainty
from app.inference.ensembles import LoadedEnsemble
from app.inference.explain import Prediction
from app.inference.judge import Judged
from app.inference.registry import Loaded


def model_reference(model: Loaded) -> ModelReference:
    """What a model is, and what runs it."""
    manifest = model.manifest
    return ModelReference(
        name=manifest.name,
        version=manifest.version,
        digest=model.digest,
        runtime=model.runtime,
    )


def class_schema(diagnostic_class: DiagnosticClass) -> DiagnosticClassSchema:
    """A diagnostic class with its code."""
    code = diagnostic_class.code
    coding = code and Coding(code=code.concept_id, display=code.display, scope=code.scope)
    return DiagnosticClassSchema(
        label=diagnostic_class.label,
        name=diagnostic_class.name,
        malignancy=diagnostic_class.malignancy,
        coding=coding,
    )


def present_answer(judged: Judged) -> AnswerSchema:
    """What is said about an image: of a rejected answer, why, and nothing else."""
    prediction, decision = judged.prediction, judged.decision
    shown = None if judged.rejected else prediction
    novelty = decision.novelty
    return AnswerSchema(
        decision=DecisionSchema(
            action=decision.action, reasons=list(decision.reasons), sentence=decision.sentence
        ),
        predicted_class=shown and class_schema(shown.predicted),
        confidence=shown and shown.confidence,
        calibrated=judged.model.manifest.calibration is not None,
        probabilities=shown and _by_label(shown.probabilities),
        prediction_sets=_sets(decision) if shown else [],
        operating_points=_points(decision) if shown else [],
        quality=QualitySchema(
            issues=list(judged.quality.issues), scores=dict(judged.quality.scores)
        ),
        out_of_distribution=novelty
        and OutOfDistributionSchema(score=novelty[0], threshold=novelty[1]),
        uncertainty=shown and judged.uncertainty and _uncertainty(judged.uncertainty),
        ensemble=shown and _ensemble(judged.model, shown),
    )


def _by_label(values: npt.NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(LABELS, values.tolist(), strict=True))


def _uncertainty(found: Uncertainty) -> UncertaintySchema:
    return UncertaintySchema(
        views=NUM_VIEWS,
        standard_deviation=_by_label(found.standard_deviation),
        same_class=found.same_class,
    )


def _sets(decision: Decision) -> list[PredictionSetSchema]:
    return [
        PredictionSetSchema(coverage=s.coverage, labels=list(s.labels), pooled=list(s.pooled))
        for s in decision.prediction_sets
    ]


def _points(decision: Decision) -> list[OperatingPointSchema]:
    return [
        OperatingPointSchema(
            target=result.point.target,
            labels=result.point.labels,
            required_sensitivity=result.point.required_sensitivity,
            threshold=result.point.threshold,
            probability=result.probability,
            positive=result.positive,
        )
        for result in decision.operating_points
    ]


def _ensemble(model: Loaded, prediction: Prediction) -> EnsembleSchema | None:
    if not isinstance(model, LoadedEnsemble) or prediction.disagreement is None:
        return None
    return EnsembleSchema(
        disagreement=prediction.disagreement,
        members=[
            MemberSchema(
                model=model_reference(member),
                weight=share.weight,
                predicted_class=answer.predicted.label,
                confidence=answer.confidence,
                probabilities=_by_label(answer.probabilities),
            )
            for member, share, answer in zip(
                model.members, model.manifest.members, prediction.members, strict=True
            )
        ],
    )
