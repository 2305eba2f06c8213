"""The Observations of a FHIR answer: predicted class, probabilities, decision (ADR-0020)."""

import math
from collections.abc import Iterator, Sequence

from app.domain.decision import Decision, OperatingPointResult
from app.interop.fhir_codes import (
    AT_OR_ABOVE,
    BELOW,
    CLASS_CONCEPTS,
    THRESHOLD,
    Json,
    decision_concept,
    own,
    quality_concept,
    reason_concept,
    share,
    unknown,
)
from app.interop.fhir_finding import Classified, Finding


def predicted_class(finding: Finding) -> Json:
    """The most probable class and its confidence, or why there is none."""
    code = own("predicted-class", "Predicted diagnostic class of a skin lesion (AI, research use)")
    found = finding.classified
    if found is None:
        return {"code": code, "dataAbsentReason": unknown(finding.decision.sentence)}
    return {
        "code": code,
        "valueCodeableConcept": CLASS_CONCEPTS[found.predicted.label],
        "method": {"text": method(finding, found)},
        "component": [
            {
                "code": own("confidence", "Probability of the predicted class"),
                "valueQuantity": share(found.confidence),
            }
        ],
    }


def class_probabilities(finding: Finding, found: Classified) -> Json:
    """The probabilities of all classes, which mean something together only."""
    components = [
        {"code": CLASS_CONCEPTS[label], "valueQuantity": share(value)}
        for label, value in found.probabilities.items()
    ]
    if found.uncertainty is not None:
        deviations = found.uncertainty.standard_deviation.tolist()
        components += [
            {
                "code": own(
                    f"standard-deviation-{label}",
                    f"Standard deviation of {label}'s probability over the picture's symmetries",
                ),
                "valueQuantity": share(value),
            }
            for label, value in zip(found.probabilities, deviations, strict=True)
        ]
    return {
        "code": own(
            "class-probabilities", "Probabilities of the diagnostic classes (AI, research use)"
        ),
        "method": {"text": method(finding, found)},
        "component": components,
    }


def decision(finding: Finding) -> Json:
    """What is to become of the answer, and all that speaks for it."""
    made = finding.decision
    components: list[Json] = [
        {
            "code": own("reason", "Reason of the decision"),
            "valueCodeableConcept": reason_concept(reason),
        }
        for reason in made.reasons
    ]
    components += [
        {
            "code": own("quality-issue", "Issue of the picture's quality"),
            "valueCodeableConcept": quality_concept(issue),
        }
        for issue in finding.quality_issues
    ]
    if finding.frame is not None:
        components.append(
            {
                "code": own("frame", "Frame of the uploaded image that was answered, from 1"),
                "valueInteger": finding.frame,
            }
        )
    components += _novelty(made)
    if finding.classified is not None:
        components += _grounds(made, finding.classified)
    observation: Json = {
        "code": own("decision", "What is to become of the answer (AI, research use)"),
        "valueCodeableConcept": decision_concept(made.action, made.sentence),
    }
    return {**observation, "component": components} if components else observation


def method(finding: Finding, found: Classified) -> str:
    """How the numbers came about."""
    calibrated = (
        "calibrated on validation images of HAM10000"
        if found.calibrated
        else "not calibrated: 0.9 does not mean that nine in ten such answers are right"
    )
    model = finding.model
    return f"{model.qualified_name}, run by {model.runtime}; probabilities {calibrated}"


def _novelty(made: Decision) -> Iterator[Json]:
    score, threshold = made.novelty or (math.nan, math.nan)
    if math.isfinite(score):  # JSON has no other numbers
        yield {
            "code": own("out-of-distribution", "How unlike the training images the picture is"),
            "valueQuantity": {"value": score},
            "referenceRange": [{"high": {"value": threshold}, "type": THRESHOLD}],
        }


def _grounds(made: Decision, found: Classified) -> Iterator[Json]:
    """What an answer that is shown was judged by."""
    for point in made.operating_points:
        yield _operating_point(point)
    for found_set in made.prediction_sets:
        percent = f"{found_set.coverage:.0%}"
        yield {
            "code": own(
                f"prediction-set-{percent.rstrip('%')}",
                f"Classes that remain possible, at {percent} coverage",
            ),
            "valueString": ", ".join(found_set.labels) + _unpromised(found_set.pooled),
        }
    if found.disagreement is not None:
        yield {
            "code": own("disagreement", "Disagreement of the ensemble's members"),
            "valueQuantity": {
                "value": found.disagreement,
                "unit": "bit",
                "system": "http://unitsofmeasure.org",
                "code": "bit",
            },
        }
    if found.uncertainty is not None:
        yield {
            "code": own("same-class", "Share of the picture's symmetries with the same class"),
            "valueQuantity": share(found.uncertainty.same_class),
        }


def _unpromised(pooled: Sequence[str]) -> str:
    """Nothing where a set promises its coverage for each class."""
    return f" (nothing is promised for {', '.join(pooled)})" if pooled else ""


def _operating_point(result: OperatingPointResult) -> Json:
    point = result.point
    return {
        "code": own(
            f"{point.target}-{point.required_sensitivity:g}",
            f"Probability of {point.target} ({', '.join(point.labels)}) against the threshold of "
            f"{point.required_sensitivity:.0%} sensitivity",
        ),
        "valueQuantity": share(result.probability),
        "interpretation": [AT_OR_ABOVE if result.positive else BELOW],
        "referenceRange": [{"high": share(point.threshold), "type": THRESHOLD}],
    }
