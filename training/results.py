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
from app.domain.labels import LABELS
from app.domain.manifest import Manifest, read_manifest
from app.domain.measurements import Calibration, Interval, Metrics
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.rules import DecisionRules
from training.figures import draw_confusion_matrix, draw_validation_curves
from training.report import malignant_among_reported, reliability_lines, rules_lines
from training.served import title_of

MODELS: Final = Path("models")
SOURCES: Final = Path("docs/results")
OUTPUT: Final = Path("docs/results.md")
IMAGES: Final = Path("docs/images")
CURVES: Final = "curves.png"

PAPER_TITLES: Final = {
    "cnn_densenet121": "CNN-DenseNet121",
    "cnn_resnet50v2_attention": "CNN-ResNet50V2 with attention",
}
PAPER_ACCURACY: Final = {"cnn_densenet121": 0.8622, "cnn_resnet50v2_attention": 0.8128}
"""Table I of the paper."""

PAPER_F1: Final = {
    "cnn_densenet121": (0.76, 0.82, 0.79, 0.84, 0.75, 0.94, 0.91),
    "cnn_resnet50v2_attention": (0.79, 0.80, 0.76, 0.82, 0.78, 0.90, 0.89),
}
"""Table II of the paper, in the order of `LABELS`."""

PAPER_COSTS: Final = {
    "cnn_densenet121": ("12.5", "5.2", "32", "98"),
    "cnn_resnet50v2_attention": ("25.3", "7.8", "45", "204"),
}
"""Table III of the paper: million parameters, training hours, ms an image, MB."""

PAPER_ABLATIONS: Final = (
    ("without the CNN path", "accuracy -3.2 (DenseNet121), -2.7 (ResNet50V2) points"),
    ("without attention", "accuracy +1.1, melanoma F1 -3.4 points (ResNet50V2)"),
    ("without augmentation", "accuracy -9.7 (DenseNet121), -11.2 (ResNet50V2) points"),
)
"""Section V of the paper."""


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
        _table_1(manifests, ensemble, sources),
        _table_2(manifests, ensemble),
        _table_3(manifests, models, sources),
        _ablations(sources),
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


def _table_1(
    manifests: list[Manifest], ensemble: EnsembleManifest | None, sources: Path
) -> list[str]:
    lines = [
        "## Accuracy (the paper's table I)",
        "",
        "| model | paper | ours, protocol `lesion` | balanced accuracy | ours, protocol `paper` |",
        "|---|---|---|---|---|",
    ]
    for manifest in manifests:
        other = sources / "paper-protocol" / f"{manifest.name}.json"
        leaked = ""
        if other.exists():
            leaked = _cell(Metrics.model_validate_json(other.read_bytes()).accuracy)
        lines.append(
            f"| {title_of(manifest)} | "
            f"{PAPER_ACCURACY.get(manifest.name, '')} | {_cell(manifest.metrics.accuracy)} | "
            f"{_cell(manifest.metrics.balanced_accuracy)} | {leaked or 'not trained'} |"
        )
    if ensemble:
        metrics = ensemble.metrics
        lines.append(
            f"| Ensemble | | {_cell(metrics.accuracy)} | {_cell(metrics.balanced_accuracy)} | |"
        )
    return [
        *lines,
        "",
        "Under protocol `paper` stand other networks of the same layers, trained on that split "
        "([experiments.md](experiments.md)). CNN-EfficientNet-Lite0's recipe went on until it was "
        "past what had been asked for, and the test part was read after each of its runs: its "
        "figure flatters. CNN-ResNet50V2's had three epochs where version 5 had five: its figure "
        "lies below the other for that, and says nothing of the split.",
    ]


def _table_2(manifests: list[Manifest], ensemble: EnsembleManifest | None) -> list[str]:
    columns: dict[str, list[str]] = {}
    for name, figures in PAPER_F1.items():
        columns[f"paper: {PAPER_TITLES[name]}"] = [f"{figure:.2f}" for figure in figures]
    ours = [(m.title, m.metrics) for m in manifests]
    if ensemble:
        ours.append(("Ensemble", ensemble.metrics))
    for title, metrics in ours:
        columns[f"ours: {title}"] = [_short(metrics.per_class[label].f1) for label in LABELS]
    rows = [[label, *(c[row] for c in columns.values())] for row, label in enumerate(LABELS)]
    return ["## F1 by class (the paper's table II)", "", *_table(["class", *columns], rows)]


def _table_3(manifests: list[Manifest], models: Path, sources: Path) -> list[str]:
    path = sources / "bench.json"
    bench = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    measured = bench.get("stages", {"hardware": "", "results": {}})
    rows = [[f"paper: {PAPER_TITLES[name]}", *figures] for name, figures in PAPER_COSTS.items()]
    for manifest in manifests:
        name = f"{manifest.name}@{manifest.version}"
        times = [
            f"{measured['results'][f'{name}, {runtime}']['model']:.0f}"
            for runtime in ("tensorflow", "openvino")
            if f"{name}, {runtime}" in measured["results"]
        ]
        folder = models / manifest.name / str(manifest.version)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        cells = [" / ".join(times) or "not measured", f"{size:.0f}"]
        parameters, hours = manifest.num_parameters / 1e6, manifest.training.seconds / 3600
        rows.append([f"ours: {manifest.title}", f"{parameters:.1f}", f"{hours:.1f}", *cells])
    header = ["model", "parameters (M)", "training (h)", "one image (ms)", "memory or file (MB)"]
    hardware = f" on {measured['hardware']}" if measured["results"] else ""
    return [
        "## Cost (the paper's table III)",
        "",
        *_table(header, rows),
        "",
        f"Ours: the artifact's size on disk, and medians{hardware} by `make bench`, TensorFlow / "
        "OpenVINO; training on the hardware that each model card names, without the runs that its "
        "weights began with and its teacher's. The paper names none for its times.",
    ]


def _ablations(sources: Path) -> list[str]:
    lines = [
        "## Ablations",
        "",
        "The paper's, each against its full hybrid:",
        "",
        *_table(["variant", "the paper's change"], [list(row) for row in PAPER_ABLATIONS]),
        "",
    ]
    path = sources / "ablations.json"
    if not path.exists():
        return [*lines, "Ours: not measured yet (`python -m training ablate`)."]
    ablations: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base, (stage,) = ablations["base"], ablations["base"]["stages"]
    rows = [
        [
            row["variant"],
            *(
                _cell(Interval.model_validate(row[key]))
                for key in ("accuracy", "balanced_accuracy", "macro_f1")
            ),
            str(row["epochs"]),
            f"{row['seconds'] / 60:.0f}",
        ]
        for row in ablations["variants"]
    ]
    header = ["variant", "accuracy", "balanced accuracy", "macro F1", "epochs", "minutes"]
    return [
        *lines,
        f"Ours, of `{base['name']}` in one stage of {stage['max_epochs']} epochs at "
        f"{stage['image_size']} pixels, on the validation part (`python -m training ablate`). The "
        "intervals are of the images alone: another seed would move the figures too.",
        "",
        *_table(header, rows),
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
    return ["## Expected calibration error", "", *_table(header, rows)]


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
                _short(outcome.accuracy, digits=3),
                malignant_among_reported(outcome, num_images),
                f"{outcome.num_malignant_reported_benign} of {outcome.num_malignant}",
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
        "malignant of what is reported",
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
        *_table(header, rows),
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
        f"{measured['num_images']} validation images (`python -m training robustness`): how many "
        "answers name another class, and how far the probability that moves most moves. The lesion "
        "is the same: where answers move far, a single one is to be taken with care.",
        "",
        *_table(header, rows),
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
        lines += ["", f"{manifest.title}, version {manifest.version}:", "", *_table(header, rows)]
    return lines


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _cell(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _short(interval: Interval, digits: int = 2) -> str:
    value, low, high = (f"{v:.{digits}f}" for v in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
