"""Measurements of answers: classes, confidence, decisions, novelty and drift; of no single one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.domain.decision import Action
from app.domain.drift import ClassWindow
from app.domain.measurements import Metrics as MeasuredMetrics

NO_CLASS: Final = "none"
"""Label of rejected answers."""
_CONFIDENCE_BUCKETS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_NOVELTY_BUCKETS: Final = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_MODEL: Final = ("model", "version")


class Measured(Protocol):
    """What answers are of: a model's manifest, or an ensemble's."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """Of the model."""
        ...

    @property
    def metrics(self) -> MeasuredMetrics:
        """On the test part."""
        ...


@dataclass(frozen=True, slots=True)
class CountedAnswer:
    """What is counted of an answer.

    Attributes:
        label: Its most probable class, which is not published where it is rejected.
        confidence: Of that class.
        action: What is to become of it.
        reasons: Why.
        issues: What is wrong with the picture.
        novelty: The score and the one above which a picture is out of distribution; None without
            rules.
    """

    label: str
    confidence: float
    action: Action
    reasons: Sequence[str]
    issues: Sequence[str]
    novelty: tuple[float, float] | None


class AnswerMetrics:
    """Metrics of answers, each by model version.

    Attributes:
        predictions: By predicted class, "none" where rejected.
        confidence: Of what was not rejected.
        decisions: By what is to become of them.
        decision_reasons: Reasons of these decisions; one may have several.
        quality_issues: What was found wrong with pictures.
        novelty: Scores as a share of the one above which a picture is out of distribution.
        drift: Population stability index of the newest classes against the test part.
        drift_window: Answers that it is made from.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them.

        Args:
            registry: Of the application.
        """
        self.predictions = Counter(
            "dermhybrid_predictions_total",
            "Answers by predicted class; none where rejected.",
            (*_MODEL, "predicted_class"),
            registry=registry,
        )
        self.confidence = Histogram(
            "dermhybrid_confidence_ratio",
            "Probability of the predicted class of answers that were not rejected.",
            _MODEL,
            buckets=_CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self.decisions = Counter(
            "dermhybrid_decisions_total",
            "Answers by what is to become of them: report, refer, reject.",
            (*_MODEL, "action"),
            registry=registry,
        )
        self.decision_reasons = Counter(
            "dermhybrid_decision_reasons_total",
            "Reasons why an answer was referred or rejected; one answer may have several.",
            (*_MODEL, "reason"),
            registry=registry,
        )
        self.quality_issues = Counter(
            "dermhybrid_quality_issues_total",
            "Issues of the pictures that were answered or rejected; one may have several.",
            ("issue",),
            registry=registry,
        )
        self.novelty = Histogram(
            "dermhybrid_novelty_ratio",
            "Score of how unlike the training images a picture is; above 1 it is out of "
            "distribution.",
            _MODEL,
            buckets=_NOVELTY_BUCKETS,
            registry=registry,
        )
        self.drift = Gauge(
            "dermhybrid_class_drift_index",
            "Population stability index of the newest answers' most probable classes, rejected "
            "ones included, against the model's own test part.",
            _MODEL,
            registry=registry,
        )
        self.drift_window = Gauge(
            "dermhybrid_class_drift_answers",
            "Answers that the index is made from.",
            _MODEL,
            registry=registry,
        )
        self._windows: dict[tuple[str, str], ClassWindow] = {}

    def count(self, model: Measured, answer: CountedAnswer, *, is_served: bool) -> None:
        """Count an answer, what is to become of it, why, and what is wrong with the picture.

        Args:
            model: Who answered.
            answer: What.
            is_served: The model has not left meanwhile: there is no drift of one that did.
        """
        labels = (model.name, str(model.version))
        rejected = answer.action is Action.REJECT
        self.predictions.labels(*labels, NO_CLASS if rejected else answer.label).inc()
        self.decisions.labels(*labels, answer.action).inc()
        if not rejected:
            self.confidence.labels(*labels).observe(answer.confidence)
        for reason in answer.reasons:
            self.decision_reasons.labels(*labels, reason).inc()
        for issue in answer.issues:
            self.quality_issues.labels(issue).inc()
        if answer.novelty is not None:
            score, threshold = answer.novelty
            self.novelty.labels(*labels).observe(score / threshold)
        if is_served:
            self._watch_drift(labels, model, answer.label)

    def _watch_drift(self, labels: tuple[str, str], model: Measured, label: str) -> None:
        window = self._windows.get(labels)
        if window is None:
            window = self._windows[labels] = ClassWindow(model.metrics.confusion_matrix)
        self.drift.labels(*labels).set(window.add(label))
        self.drift_window.labels(*labels).set(window.num_answers)

    def forget_models(self) -> None:
        """Begin the windows anew: other models are served from now on."""
        self._windows.clear()
        self.drift.clear()
        self.drift_window.clear()
