"""Write `docs/results.md` and its figures from committed JSON: `python -m training.results`.

```
models/<name>/<version>/manifest.json   test figures, calibration, learning curve
models/ensemble.json                    the same of the ensemble
docs/results/bench.json                 make bench
docs/results/robustness.json            python -m training robustness
docs/results/ablations.json             python -m training ablate
docs/results/paper-protocol/<name>.json `metrics.json` of a run with protocol `paper`
```

The last five are optional; what is missing is said to be missing.
"""

import json
from pathlib import Path
from typing import Any, Final

from app.domain.card import PAST_READINGS, PATIENT_LIMIT, PREVALENCE_LIMIT
from app.domain.ensemble import ENSEMBLE_NAME, EnsembleManifest, read_ensemble
from app.domain.manifest import Manifest, read_manifest
from app.domain.measurements import Calibration, Metrics
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.rules import DecisionRules
from training.figures import draw_confusion_matrix, draw_validation_curves
from training.markdown import in_words, table
from training.paper_tables import ablations, accuracies, class_scores, costs
from training.report import (
    malignant_among_reported,
    reliability_lines,
    reported_benign,
    rules_lines,
)
from training.served import title_of

MODELS: Final = Path("models")
SOURCES: Final = Path("docs/results")
OUTPUT: Final = Path("docs/results.md")
IMAGES: Final = Path("docs/images")
CURVES: Final = "curves.png"


def main() -> None:
    """Rewrite the page and its figures."""
    OUTPUT.write_text(render(MODELS, SOURCES), encoding="utf-8")
    manifests = newest_manifests(MODELS)
    for manifest in manifests:
        draw_confusion_matrix(manifest.metrics, IMAGES / f"confusion_{manifest.name}.png")
    draw_validation_curves({m.title: m.training.history for m in manifests}, IMAGES / CURVES)


def render(models: Path, sources: Path) -> str:
    """The page as Markdown.

    Args:
        models: Folder of all artifacts; the newest version of each counts.
        sources: Folder of the other JSON files.

    Raises:
        ManifestError: A manifest is wrong.
    """
    manifests = newest_manifests(models)
    path = models / ENSEMBLE_NAME
    ensemble = read_ensemble(path) if path.exists() else None
    sections = [
        _introduction(),
        accuracies(manifests, ensemble, sources),
        class_scores(manifests, ensemble),
        costs(manifests, models, sources),
        ablations(sources),
        _calibration(manifests, ensemble),
        _decisions(manifests, ensemble),
        _robustness(sources),
        _confusion(manifests),
        *(_details(m.title, m.version, m.metrics, m.decision) for m in manifests),
    ]
    if ensemble:
        sections.append(
            _details(ensemble.title, ensemble.version, ensemble.metrics, ensemble.decision)
        )
    sections.append(_curves(manifests))
    return "\n".join(line for section in sections for line in [*section, ""])


def newest_manifests(models: Path) -> list[Manifest]:
    """The manifest of each model's newest version, by name."""
    return [
        read_manifest(max(versions, key=lambda path: int(path.name)))[0]
        for folder in sorted(models.iterdir())
        # A folder that begins with a dot is of an export that was killed.
        if not folder.name.startswith(".")
        and (versions := [path for path in folder.glob("*") if path.name.isdigit()])
    ]


def _introduction() -> list[str]:
    return [
        "# Results",
        "",
        "Written by `python -m training.results` from `models/*/*/manifest.json` and "
        f"`docs/results/`. {RESEARCH_USE_NOTICE}",
        "",
        "Ours: the test part of protocol `lesion` (no lesion in two parts), measured once per "
        "recipe, with 95 % bootstrap intervals over lesions. The paper's: as printed there, on a "
        "split by image, so that photographs of one lesion fall into several parts. What was "
        "tried on the way, failures included, is in [experiments.md](experiments.md).",
        "",
        f"{PAST_READINGS} {PATIENT_LIMIT} {PREVALENCE_LIMIT}",
    ]


def _calibration(manifests: list[Manifest], ensemble: EnsembleManifest | None) -> list[str]:
    answering: list[tuple[str, Calibration | None, Metrics]] = [
        (m.title, m.calibration, m.metrics) for m in manifests
    ]
    if ensemble:
        answering.append(("Ensemble", ensemble.calibration, ensemble.metrics))
    rows = []
    for title, calibration, metrics in answering:
        if calibration is None or metrics.calibration_error is None:
            rows.append([title, "not calibrated", "", "", ""])
            continue
        rows.append(
            [
                title,
                f"{calibration.temperature:.4f}",
                f"{calibration.error_before:.4f}",
                f"{calibration.error_after:.4f}",
                f"{metrics.calibration_error:.4f}",
            ]
        )
    header = ["model", "temperature", "validation, before", "validation, after", "test"]
    return ["## Expected calibration error", "", *table(header, rows)]


def _decisions(manifests: list[Manifest], ensemble: EnsembleManifest | None) -> list[str]:
    deciding = [(m.title, m.decision, m.metrics.num_images) for m in manifests]
    if ensemble:
        deciding.append(("Ensemble", ensemble.decision, ensemble.metrics.num_images))
    rows = []
    for title, rules, num_images in deciding:
        if rules is None:
            rows.append([title, "no rules: always referred", *[""] * 7])
            continue
        outcome, referral = rules.outcome, rules.referral
        rows.append(
            [
                title,
                f"{outcome.reported:.1%}",
                f"{outcome.referred:.1%}",
                f"{outcome.rejected:.1%}",
                in_words(outcome.accuracy, 3),
                malignant_among_reported(outcome, num_images),
                reported_benign(outcome),
                f"{referral.accuracy.value:.3f} at {referral.referred.value:.1%}",
                " / ".join(f"{r.measured.coverage.value:.3f}" for r in rules.prediction_sets),
            ]
        )
    header = [
        "model",
        "reported",
        "referred",
        "rejected",
        "accuracy of what is reported",
        "malignant of what is reported as benign",
        "malignant, reported as benign",
        "by confidence alone: accuracy at share referred",
        "coverage of 90 % / 95 % sets",
    ]
    return [
        "## Decisions",
        "",
        "Of the test images, by rules chosen on the validation part (`python -m training decide` "
        "and `ensemble`; ADR-0014). Every rule, the referral curves and coverage by class are "
        "below.",
        "",
        *table(header, rows),
    ]


def _robustness(sources: Path) -> list[str]:
    lines = ["## Slightly disturbed images", ""]
    path = sources / "robustness.json"
    if not path.exists():
        return [*lines, "Not measured yet (`python -m training robustness`)."]
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for title, model in measured["models"].items():
        rows.append([title, "none", f"{model['accuracy']:.3f}", "", "", ""])
        for name, found in model["disturbances"].items():
            cells = [f"{found[key]:.3f}" for key in ("accuracy", "changed", "median", "p99")]
            rows.append(["", name, *cells])
    header = ["model", "disturbance", "accuracy", "other class", "median change", "99th percentile"]
    return [
        *lines,
        f"{measured['num_images']} validation images (`python -m training robustness --every "
        f"{measured['every']}`): how many "
        "answers name another class, and how far the probability that moves most moves. The lesion "
        "is the same: where answers move far, a single one is to be taken with care.",
        "",
        *table(header, rows),
    ]


def _confusion(manifests: list[Manifest]) -> list[str]:
    lines = ["## Confusion matrices (the paper's figures 3 and 4)"]
    for manifest in manifests:
        title = title_of(manifest)
        lines += ["", f"![{title}](images/confusion_{manifest.name}.png)", "", f"*{title}*"]
    return lines


def _details(title: str, version: int, metrics: Metrics, rules: DecisionRules | None) -> list[str]:
    lines = [f"## {title}, version {version}", ""]
    measured = reliability_lines(metrics)
    if not measured:
        return [*lines, "Measured before thresholds and subgroups."]
    lines += measured
    return (
        [*lines, "", "### When an answer is reported", "", *rules_lines(rules, metrics)]
        if rules
        else lines
    )


def _curves(manifests: list[Manifest]) -> list[str]:
    lines = ["## Learning curves (the paper's figure 5)", "", f"![Curves](images/{CURVES})"]
    for manifest in manifests:
        history = manifest.training.history
        if not history:
            continue
        rows = [
            [
                str(epoch),
                str(line.image_size),
                *(
                    f"{value:.4f}"
                    for value in (
                        line.loss,
                        line.accuracy,
                        line.validation_loss,
                        line.validation_accuracy,
                    )
                ),
            ]
            for epoch, line in enumerate(history, start=1)
        ]
        header = ["epoch", "pixels", "loss", "accuracy", "validation loss", "validation accuracy"]
        lines += ["", f"{manifest.title}, version {manifest.version}:", "", *table(header, rows)]
    return lines


if __name__ == "__main__":
    main()
