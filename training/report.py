"""Figures as Markdown, for the report of an evaluation and for cards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.domain.labels import LABELS
from app.domain.measurements import Interval, Metrics, OperatingPoint
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.rules import DecisionRules, Outcome
from training.config import Recipe
from training.markdown import in_words


def write_report(recipe: Recipe, metrics: Metrics, path: Path) -> None:
    """Write an evaluation's report beside its figures."""
    lines = [
        f"# {recipe.name} on the {metrics.part} part",
        "",
        f"Protocol `{recipe.protocol}`, {metrics.num_images} images. {RESEARCH_USE_NOTICE}",
        "",
        *metrics_lines(metrics),
        "",
        *reliability_lines(metrics),
        "",
        "![Confusion matrix](confusion_matrix.png)",
        "",
        "![Reliability](reliability.png)",
        "",
        "![Training curves](curves.png)",
        "",
        "One image of each class, drawn by seed:",
        "",
        "![Heatmaps](heatmaps.png)",
        "",
        *(
            ["The wrong answers that were most certain:", "", "![Failures](failures.png)", ""]
            if metrics.failures
            else []
        ),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def metrics_lines(metrics: Metrics, unit: str = "lesions") -> list[str]:
    """Two Markdown tables: overall, and by class.

    Args:
        metrics: The figures.
        unit: What the intervals' bootstrap drew.
    """
    lines = [
        "| | value | 95 % interval |",
        "|---|---|---|",
        f"| accuracy | {_cells(metrics.accuracy)} |",
        f"| balanced accuracy | {_cells(metrics.balanced_accuracy)} |",
        f"| macro F1 | {_cells(metrics.macro_f1)} |",
        "",
        f"Intervals: percentiles of a bootstrap over {unit}; of figures of 0 or 1, from Wilson's.",
        "",
        "| class | images | precision | recall | F1 | ROC AUC |",
        "|---|---|---|---|---|---|",
    ]
    for label in LABELS:
        figures = metrics.per_class[label]
        if not figures.support:
            lines.append(f"| {label} | 0 | | | | |")
            continue
        cells = " | ".join(
            in_words(v, 3) for v in (figures.precision, figures.recall, figures.f1, figures.roc_auc)
        )
        lines.append(f"| {label} | {figures.support} | {cells} |")
    return lines


def reliability_lines(metrics: Metrics) -> list[str]:
    """Calibration, operating points and subgroups as Markdown; nothing where unmeasured."""
    if metrics.calibration_error is None:
        return []
    lines = [
        f"Expected calibration error: {metrics.calibration_error:.4f} (15 bins of the answered "
        "class's probability, over all images: no class's own probability was judged).",
        "",
    ]
    if metrics.operating_points:
        lines += [
            "Operating points: the classes' summed probability at or above a threshold that was "
            "chosen on the validation part for a sensitivity there.",
            "",
            "| target | chosen for | threshold | sensitivity | specificity |",
            "|---|---|---|---|---|",
            *(
                f"| {p.target} ({' + '.join(p.labels)}) | {p.required_sensitivity:.2f} | "
                f"{p.threshold:.4f} | {_of_point(p, metrics)} |"
                for p in metrics.operating_points
            ),
            "",
        ]
    lines += [
        "| attribute | value | images | accuracy | melanomas | melanoma recall |",
        "|---|---|---|---|---|---|",
    ]
    for group in metrics.subgroups:
        recall = "" if group.melanoma_recall is None else in_words(group.melanoma_recall, 3)
        lines.append(
            f"| {group.attribute} | {group.value} | {group.num_images} | "
            f"{in_words(group.accuracy, 3)} | {group.num_melanomas} | {recall} |"
        )
    if metrics.failures:
        lines += [
            "",
            "The wrong answers that were most certain (look them up in the "
            "[ISIC Archive](https://www.isic-archive.com)):",
            "",
            "| image | true | answered | probability |",
            "|---|---|---|---|",
            *(
                f"| {f.image} | {f.truth} | {f.answer} | {f.probability:.4f} |"
                for f in metrics.failures
            ),
        ]
    return lines


_ONLY_BENIGN: Final = (
    " Only answers of a benign class are ever reported, for a malignant one is above the operating "
    "point of malignancy wherever it is sure enough."
)


def _of_point(point: OperatingPoint, metrics: Metrics) -> str:
    """Sensitivity and specificity; blank where there is nothing to find, or nothing else."""
    found = sum(metrics.per_class[label].support for label in point.labels)
    sensitivity = in_words(point.sensitivity, 3) if found else ""
    specificity = in_words(point.specificity, 3) if found < metrics.num_images else ""
    return f"{sensitivity} | {specificity}"


def rules_lines(rules: DecisionRules | None, metrics: Metrics) -> list[str]:
    """When an answer is reported, and what came of it on the test part, as Markdown.

    Args:
        rules: None where there are none.
        metrics: With the operating points that the rules apply.
    """
    if rules is None:
        return []
    outcome, referral = rules.outcome, rules.referral
    lines = [
        f"Rules chosen on the validation part by `python -m training decide` or `ensemble` (commit "
        f"`{rules.git_commit}`; ADR-0014), measured on the test part: {outcome.reported:.1%} of "
        f"the images are reported, {outcome.referred:.1%} referred to a person, "
        f"{outcome.rejected:.1%} rejected as out of distribution, the checks of picture quality "
        f"left aside. Of what is reported, {in_words(outcome.accuracy, 3)} is right; "
        f"of the malignant images {reported_benign(outcome)} are reported as benign, "
        f"{malignant_among_reported(outcome, metrics.num_images)} of what is "
        f"reported as that{_rejected(outcome)}."
        f"{_ONLY_BENIGN if reports_benign_alone(rules, metrics.operating_points) else ''}",
        "",
        "| reason | rule | share of test images |",
        "|---|---|---|",
        *(
            f"| `{name}` | {_rule(name, rules)} | {found:.1%} |"
            for name, found in outcome.reasons.items()
        ),
        "",
        f"By confidence alone: at or above {referral.min_confidence:.4f}, chosen for an accuracy "
        f"of {referral.required_accuracy:.2f}, {in_words(referral.accuracy, 3)} of the answers are "
        f"right, and {in_words(referral.referred, 3)} are referred. The referral curve:",
        "",
        f"| referred | {' | '.join(f'{point.referred:.0%}' for point in referral.curve)} |",
        f"|---{'|---' * len(referral.curve)}|",
        f"| accuracy | {' | '.join(f'{point.accuracy:.3f}' for point in referral.curve)} |",
        "",
        "Prediction sets (class-conditional split conformal prediction):",
        "",
        f"| coverage | measured | {' | '.join(LABELS)} | classes in a set | sets of one class |",
        f"|---|---{'|---' * len(LABELS)}|---|---|",
    ]
    for rule in rules.prediction_sets:
        found = rule.measured
        cells = " | ".join(
            f"{found.per_class[label]:.3f}{'*' if label in rule.pooled else ''}"
            if label in found.per_class
            else ""
            for label in LABELS
        )
        lines.append(
            f"| {rule.coverage:.0%} | {in_words(found.coverage, 3)} | {cells} | "
            f"{found.mean_size:.2f} | {found.singletons:.1%} |"
        )
    if any(rule.pooled for rule in rules.prediction_sets):
        lines += [
            "",
            "\\* Too few validation lesions for this coverage: the threshold is not of this class "
            "alone, and nothing is promised for it.",
        ]
    return [*lines, ""]


def reported_benign(outcome: Outcome) -> str:
    """How many malignant images are reported as benign, of how many, and of which classes.

    Args:
        outcome: On the test part.
    """
    of_all = f"{outcome.num_malignant_reported_benign} of {outcome.num_malignant}"
    if outcome.reported_benign_by_class is None:
        return of_all
    counts = ", ".join(f"{label} {n}" for label, n in outcome.reported_benign_by_class.items())
    return f"{of_all} ({counts})"


def malignant_among_reported(outcome: Outcome, num_images: int) -> str:
    """The share of malignant images among what is reported; its interval where there is one.

    Args:
        outcome: On the test part.
        num_images: Of that part.
    """
    if outcome.malignant_of_reported is not None:
        return in_words(outcome.malignant_of_reported, 3)
    num_reported = round(outcome.reported * num_images)
    return f"{outcome.num_malignant_reported_benign / max(1, num_reported):.3f}"


def _rejected(outcome: Outcome) -> str:
    """Nothing for rules of before that was counted."""
    number = outcome.num_malignant_rejected
    return "" if number is None else f"; {number} get no answer"


def reports_benign_alone(rules: DecisionRules, points: Sequence[OperatingPoint]) -> bool:
    """Whether no answer of a malignant class can be sure enough to be reported.

    Its probability would be above the malignant classes' threshold, which refers.

    Args:
        rules: Of the model.
        points: Of its calibration.
    """
    return any(
        rules.refers_at(point) and point.threshold <= rules.referral.min_confidence
        for point in points
    )


def _rule(reason: str, rules: DecisionRules) -> str:
    return {
        "out-of-distribution": f"score above {rules.novelty.threshold:.4g} "
        f"({rules.novelty.accepted_validation:.1%} of validation images are not)",
        "malignancy": "operating point of malignancy chosen for a sensitivity of "
        f"{rules.referring_sensitivity:.2f}",
        "low-confidence": f"confidence below {rules.referral.min_confidence:.4f}",
        "large-set": f"more than {rules.max_set_size} classes in the set of "
        f"{rules.prediction_sets[0].coverage:.0%} coverage",
        "disagreement": "Jensen-Shannon divergence of the members above "
        f"{rules.max_disagreement or 0.0:.4f} bits",
    }[reason]


def _cells(interval: Interval) -> str:
    return f"{interval.value:.4f} | {interval.low:.4f} to {interval.high:.4f}"
