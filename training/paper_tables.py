"""The paper's tables and ablations beside ours, as lines of `docs/results.md`."""

import json
from pathlib import Path
from typing import Any, Final

from app.domain.ensemble import EnsembleManifest
from app.domain.labels import LABELS
from app.domain.manifest import Manifest
from app.domain.measurements import Interval, Metrics
from training.markdown import in_words, table
from training.served import title_of

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


def accuracies(
    manifests: list[Manifest], ensemble: EnsembleManifest | None, sources: Path
) -> list[str]:
    """Table I, with balanced accuracy and the paper's split.

    Args:
        manifests: Of the newest models.
        ensemble: Of them, where there is one.
        sources: `docs/results`, with `paper-protocol/<name>.json`.
    """
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
            leaked = in_words(Metrics.model_validate_json(other.read_bytes()).accuracy, 4)
        lines.append(
            f"| {title_of(manifest)} | "
            f"{PAPER_ACCURACY.get(manifest.name, '')} | {in_words(manifest.metrics.accuracy, 4)} | "
            f"{in_words(manifest.metrics.balanced_accuracy, 4)} | {leaked or 'not trained'} |"
        )
    if ensemble:
        figures = (ensemble.metrics.accuracy, ensemble.metrics.balanced_accuracy)
        lines.append(f"| Ensemble | | {' | '.join(in_words(f, 4) for f in figures)} | |")
    return [
        *lines,
        "",
        "Under protocol `paper` stand other networks of the same layers, trained on that split "
        "([experiments.md](experiments.md)). CNN-EfficientNet-Lite0's recipe went on until it was "
        "past what had been asked for, and the test part was read after each of its runs: its "
        "figure flatters. CNN-ResNet50V2's had four epochs where the other one has had seven, and "
        "another last stage: the two figures do not tell what the split is worth.",
    ]


def class_scores(manifests: list[Manifest], ensemble: EnsembleManifest | None) -> list[str]:
    """Table II: F1 of each class."""
    columns: dict[str, list[str]] = {}
    for name, figures in PAPER_F1.items():
        columns[f"paper: {PAPER_TITLES[name]}"] = [f"{figure:.2f}" for figure in figures]
    ours = [(m.title, m.metrics) for m in manifests]
    if ensemble:
        ours.append(("Ensemble", ensemble.metrics))
    for title, metrics in ours:
        columns[f"ours: {title}"] = [in_words(metrics.per_class[label].f1, 2) for label in LABELS]
    rows = [[label, *(c[row] for c in columns.values())] for row, label in enumerate(LABELS)]
    return ["## F1 by class (the paper's table II)", "", *table(["class", *columns], rows)]


def costs(manifests: list[Manifest], models: Path, sources: Path) -> list[str]:
    """Table III: parameters, hours of training, milliseconds an image, megabytes.

    Args:
        manifests: Of the newest models.
        models: Folder of all artifacts.
        sources: `docs/results`, with `bench.json`.
    """
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
        *table(header, rows),
        "",
        f"Ours: the artifact's size on disk, and medians{hardware} by `make bench`, TensorFlow / "
        "OpenVINO; training on the hardware that each model card names, without the runs that its "
        "weights began with and its teacher's. The paper names none for its times.",
    ]


def ablations(sources: Path) -> list[str]:
    """Section V, and `ablations.json` of `docs/results`."""
    lines = [
        "## Ablations",
        "",
        "The paper's, each against its full hybrid:",
        "",
        *table(["variant", "the paper's change"], [list(row) for row in PAPER_ABLATIONS]),
        "",
    ]
    path = sources / "ablations.json"
    if not path.exists():
        return [*lines, "Ours: not measured yet (`python -m training ablate`)."]
    ablations: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base, (stage,) = ablations["base"], ablations["base"]["stages"]
    limit = f" of {stage['steps_per_epoch']} steps" if stage["steps_per_epoch"] else ""
    rows = [
        [
            row["variant"],
            *(
                in_words(Interval.model_validate(row[key]), 4)
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
        f"Ours, of `{base['name']}` in one stage of {stage['max_epochs']} epochs{limit} at "
        f"{stage['image_size']} pixels, on the validation part (`python -m training ablate`). The "
        "intervals are of the images alone: another seed would move the figures too.",
        "",
        *table(header, rows),
    ]
