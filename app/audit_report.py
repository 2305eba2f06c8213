"""What the records say of a model in use: agreement with diagnoses, decisions, drift (ADR-0015)."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.audit_chain import log_files
from app.domain.decision import disagreement
from app.domain.errors import AuditDamagedError
from app.domain.feedback import DiagnosisSource
from app.domain.intervals import wilson
from app.domain.labels import LABELS
from app.domain.measurements import Metrics
from app.feedback import FEEDBACK_FOLDER

NUM_BINS: Final = 15
"""Of confidence, equally wide, as in `Metrics.reliability`."""
_STRENGTH: Final = {source: rank for rank, source in enumerate(reversed(DiagnosisSource))}


@dataclass(slots=True)
class ModelReport:
    """What the records say of one version of a model.

    Attributes:
        num_answers: Recorded answers.
        num_diagnosed: Of these, with a diagnosis.
        actions: Answers by what was to become of them; records from before decisions have none.
        reasons: Answers by reason.
        classes: Answers by predicted class; rejected ones have none.
        confidence: Answers by bin of confidence, (15,) counts.
        sources: Diagnosed answers by how the diagnosis was made.
        confusion: Diagnosed answers, {diagnosis: {predicted class: count}}.
        num_rejected_diagnosed: Diagnosed answers that were rejected, which are in no confusion.
    """

    num_answers: int = 0
    num_diagnosed: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    confidence: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    sources: Counter[str] = field(default_factory=Counter)
    confusion: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    num_rejected_diagnosed: int = 0

    def agreement(self) -> tuple[int, int]:
        """Diagnosed answers that named the diagnosis, and all diagnosed ones with an answer."""
        right = sum(row[label] for label, row in self.confusion.items())
        return right, sum(row.total() for row in self.confusion.values())


def read_reports(*directories: Path) -> dict[str, ModelReport]:
    """Read an audit log and its feedback once; memory grows with the feedback alone.

    Args:
        directories: The audit log, and the folders of its archive. Run `dermhybrid audit verify`
            on them first: what is no record is passed over here.

    Returns:
        By `name@version`, sorted.

    Raises:
        AuditDamagedError: The folders are not of one log.
        OSError: It cannot be read.
    """
    diagnoses = _diagnoses([directory / FEEDBACK_FOLDER for directory in directories])
    reports: defaultdict[str, ModelReport] = defaultdict(ModelReport)
    for record in _records(directories):
        try:
            model, answer = record["model"], record["answer"]
            report = reports[f"{model['name']}@{model['version']}"]
            _count(report, answer, diagnoses.get(record["sequence"]))
        except (KeyError, TypeError):
            continue
    return dict(sorted(reports.items()))


def _count(
    report: ModelReport, answer: Mapping[str, Any], diagnosis: tuple[str, str] | None
) -> None:
    predicted, confidence = answer["predicted_class"], answer["confidence"]
    report.num_answers += 1
    decision = answer.get("decision")
    if decision is not None:
        report.actions[decision["action"]] += 1
        report.reasons.update(decision["reasons"])
    if predicted is not None:
        report.classes[predicted] += 1
        report.confidence[_bin(confidence)] += 1
    if diagnosis is None:
        return
    label, source = diagnosis
    report.num_diagnosed += 1
    report.sources[source] += 1
    if predicted is None:
        report.num_rejected_diagnosed += 1
    else:
        report.confusion[label][predicted] += 1


def _diagnoses(directories: Sequence[Path]) -> dict[int, tuple[str, str]]:
    """Diagnosis and source by the number of the answer's record: of the strongest the newest."""
    found: dict[int, tuple[str, str]] = {}
    for record in _records(directories):
        try:
            sequence, source = int(record["answer"]["sequence"]), DiagnosisSource(record["source"])
            known = found.get(sequence)
            if known is None or _STRENGTH[source] >= _STRENGTH[DiagnosisSource(known[1])]:
                found[sequence] = (str(record["diagnosis"]), source.value)
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _records(directories: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """In the order of the files' numbers; a file that two folders have is read once.

    Raises:
        AuditDamagedError: Two folders have different files of one number.
    """
    files: dict[str, Path] = {}
    for path in (path for directory in directories for path in log_files(directory)):
        other = files.setdefault(path.name, path)
        if other != path and not cmp(other, path, shallow=False):
            raise AuditDamagedError(
                f"{path} differs from {other}: these are not folders of one log. Report them one "
                "by one."
            )
    for _, path in sorted(files.items()):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record


def _bin(confidence: float) -> int:
    return min(NUM_BINS - 1, max(0, math.ceil(confidence * NUM_BINS) - 1))


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a distribution has moved from the test part's.

    Attributes:
        divergence: Jensen-Shannon, in bits: 0 for the same, 1 for nothing in common.
        by_chance: What it would be about without any drift, for so few images.
    """

    divergence: float
    by_chance: float


def drift_of_classes(report: ModelReport, metrics: Metrics) -> Drift | None:
    """Of the predicted classes; None without an answer."""
    before = np.array(metrics.confusion_matrix, np.float64).sum(axis=0)
    return _drift(np.array([report.classes[label] for label in LABELS], np.float64), before)


def drift_of_confidence(report: ModelReport, metrics: Metrics) -> Drift | None:
    """Of the bins of confidence; None without an answer, or where the test part has no bins."""
    before = np.zeros(NUM_BINS)
    for reliability in metrics.reliability:
        before[_bin(reliability.confidence)] += reliability.num_images
    return _drift(np.array(report.confidence, np.float64), before)


def _drift(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> Drift | None:
    if not now.sum() or not before.sum():
        return None
    shares = [counts[None] / counts.sum() for counts in (now, before)]
    classes = int(((now + before) > 0).sum())
    # Of close distributions the divergence is an eighth of chi-square, in nats.
    chance = (classes - 1) / (8 * math.log(2)) * (1 / now.sum() + 1 / before.sum())
    return Drift(float(disagreement(shares)[0]), chance)


def to_json(reports: Mapping[str, ModelReport], metrics: Mapping[str, Metrics]) -> dict[str, Any]:
    """For machines.

    Args:
        reports: By `name@version`.
        metrics: Of the test part, of the models that are at hand.
    """
    return {name: _to_json(report, metrics.get(name)) for name, report in reports.items()}


def _to_json(report: ModelReport, metrics: Metrics | None) -> dict[str, Any]:
    right, answered = report.agreement()
    low, high = wilson(right, answered)
    drift = {"classes": drift_of_classes, "confidence": drift_of_confidence}
    return {
        "num_answers": report.num_answers,
        "num_diagnosed": report.num_diagnosed,
        "num_rejected_diagnosed": report.num_rejected_diagnosed,
        "agreement": None
        if not answered
        else {"right": right, "of": answered, "low": round(low, 4), "high": round(high, 4)},
        "sources": dict(report.sources),
        "confusion": {label: dict(row) for label, row in report.confusion.items()},
        "actions": dict(report.actions),
        "reasons": dict(report.reasons),
        "classes": dict(report.classes),
        "drift": {
            name: found and {"divergence": found.divergence, "by_chance": found.by_chance}
            for name, measure in drift.items()
            for found in [measure(report, metrics) if metrics else None]
        },
    }


def to_text(reports: Mapping[str, ModelReport], metrics: Mapping[str, Metrics]) -> str:
    """For people; the same arguments."""
    if not reports:
        return "no record"
    return "\n\n".join(
        "\n".join(_lines(name, report, metrics.get(name))) for name, report in reports.items()
    )


def _lines(name: str, report: ModelReport, metrics: Metrics | None) -> Iterator[str]:
    yield f"{name}: {report.num_answers} answers"
    for title, counts in (
        ("decisions", report.actions),
        ("reasons", report.reasons),
        ("classes", report.classes),
    ):
        if counts:
            yield f"  {title}: {_shares(counts, report.num_answers)}"
    yield from _drift_lines(report, metrics)
    yield (
        f"  diagnoses: {report.num_diagnosed} answers have one"
        + (f" ({_shares(report.sources, report.num_diagnosed)})" if report.sources else "")
        + f"; of {report.num_answers - report.num_diagnosed} nothing is known"
    )
    if report.num_rejected_diagnosed:
        yield f"  {report.num_rejected_diagnosed} of them were rejected"
    right, answered = report.agreement()
    if not answered:
        return
    low, high = wilson(right, answered)
    yield f"  agreement: {right} of {answered}, {right / answered:.3f} ({low:.3f} to {high:.3f})"
    width = max(len(label) for label in LABELS) + 1
    yield "  diagnosis \\ answer " + "".join(label.rjust(width) for label in LABELS)
    for label in LABELS:
        row = report.confusion.get(label)
        if row:
            cells = "".join(str(row[predicted]).rjust(width) for predicted in LABELS)
            yield f"  {label:18} {cells}"


def _drift_lines(report: ModelReport, metrics: Metrics | None) -> Iterator[str]:
    if metrics is None:
        yield "  drift: not known; this version is not among the models"
        return
    for title, found in (
        ("classes", drift_of_classes(report, metrics)),
        ("confidence", drift_of_confidence(report, metrics)),
    ):
        if found is not None:
            yield (
                f"  drift of {title} from the test part: {found.divergence:.4f} bits "
                f"(about {found.by_chance:.4f} by chance alone)"
            )


def _shares(counts: Mapping[str, int], total: int) -> str:
    return ", ".join(
        f"{name} {count} ({count / total:.1%})"
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    )
