"""Figures as Markdown: the report of an evaluation and the model card of an artifact."""

from pathlib import Path
from typing import Any, Final

from app.domain.labels import CLASSES, LABELS
from app.domain.manifest import Manifest, TrainingProcess
from app.domain.measurements import Interval, Metrics
from app.domain.notice import RESEARCH_USE_NOTICE
from training.config import Recipe

DATA_TERMS: Final = (
    "HAM10000 (P. Tschandl, C. Rosendahl, H. Kittler, Scientific Data 5:180161, 2018, "
    "doi:10.1038/sdata.2018.161), ViDIR Group, Department of Dermatology, Medical University "
    "of Vienna, CC BY-NC 4.0: the weights are for non-commercial use."
)


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
        "The wrong answers that were most certain:",
        "",
        "![Failures](failures.png)",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def metrics_lines(metrics: Metrics) -> list[str]:
    """Two Markdown tables: overall, and by class."""
    lines = [
        "| | value | 95 % interval |",
        "|---|---|---|",
        f"| accuracy | {_cells(metrics.accuracy)} |",
        f"| balanced accuracy | {_cells(metrics.balanced_accuracy)} |",
        f"| macro F1 | {_cells(metrics.macro_f1)} |",
        "",
        "Intervals: percentiles of a bootstrap over lesions.",
        "",
        "| class | images | precision | recall | F1 | ROC AUC |",
        "|---|---|---|---|---|---|",
    ]
    for label in LABELS:
        figures = metrics.per_class[label]
        cells = " | ".join(
            _short(v) for v in (figures.precision, figures.recall, figures.f1, figures.roc_auc)
        )
        lines.append(f"| {label} | {figures.support} | {cells} |")
    return lines


def reliability_lines(metrics: Metrics) -> list[str]:
    """Calibration, operating points and subgroups as Markdown; nothing where unmeasured."""
    if metrics.calibration_error is None:
        return []
    lines = [
        f"Expected calibration error: {metrics.calibration_error:.4f} (15 bins of the answer's "
        "probability).",
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
                f"{p.threshold:.4f} | {_short(p.sensitivity)} | {_short(p.specificity)} |"
                for p in metrics.operating_points
            ),
            "",
        ]
    lines += [
        "| attribute | value | images | accuracy | melanomas | melanoma recall |",
        "|---|---|---|---|---|---|",
    ]
    for group in metrics.subgroups:
        recall = "" if group.melanoma_recall is None else _short(group.melanoma_recall)
        lines.append(
            f"| {group.attribute} | {group.value} | {group.num_images} | "
            f"{_short(group.accuracy)} | {group.num_melanomas} | {recall} |"
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


def model_card(manifest: Manifest) -> str:
    """The model card of an artifact (Mitchell et al., "Model Cards", FAT* 2019)."""
    training, metrics = manifest.training, manifest.metrics
    stages = ", ".join(_stage(stage) for stage in training.recipe["stages"])
    commits = ", ".join(dict.fromkeys(_code(process) for process in training.processes))
    classes = [f"- `{c.label}`: {c.name} ({c.malignancy})" for c in CLASSES]
    lines = [
        f"# {manifest.title}, version {manifest.version}",
        "",
        f"**{RESEARCH_USE_NOTICE}**",
        "",
        "## What it is",
        "",
        f"A hybrid network of {manifest.num_parameters:,} parameters: "
        f"{training.recipe['backbone']}"
        f"{' with spatial attention' if manifest.has_attention else ''} beside a small CNN, after "
        "Baliyan, Tomar and Dixit, *A Hybrid Deep Learning Model to Improve Skin Cancer "
        "Classification*. It takes one dermatoscopic image (224 x 224) and gives a probability "
        "for each of seven classes:",
        "",
        *classes,
        "",
        "## Intended use",
        "",
        "Research on dermatoscopic images of pigmented lesions like those of HAM10000, and "
        "trials of the service around it. Out of scope: any clinical decision, photographs "
        "without a dermatoscope, mucosa and nails, diagnoses outside the seven classes (the "
        "model always answers one of them), and populations other than those below.",
        "",
        "## Data",
        "",
        DATA_TERMS,
        "",
        f"Split `{training.protocol}` (64 % training, 16 % validation, 20 % test"
        f"{_LEAK[training.protocol]}), seed "
        f"{training.split_seed}, fingerprint `{training.data_fingerprint}`. The patients come "
        "from Austria and Australia and are mostly light-skinned; more than half of the "
        "diagnoses were confirmed by histopathology.",
        "",
        "## Training",
        "",
        f"{training.epochs} epochs (at most {stages}), {training.steps:,} steps of "
        f"{training.recipe['batch_size']} images, {training.seconds / 3600:.1f} hours on "
        f"{training.hardware}; initial backbone weights: `{training.recipe['backbone_weights']}`. "
        f"{_origins(training.recipe)}"
        f"Trained by: {commits}. Exported by: commit `{manifest.git_commit}`. The whole recipe is "
        "in `manifest.json`.",
        "",
        f"## Results on the {metrics.part} part",
        "",
        f"{metrics.num_images} images that neither training nor model selection saw, measured "
        "with the exported graph by `python -m training evaluate`.",
        "",
        *metrics_lines(metrics),
        "",
        *reliability_lines(metrics),
        "",
        "Confusion matrix, a row a true class:",
        "",
        f"| | {' | '.join(LABELS)} |",
        f"|---{'|---' * len(LABELS)}|",
        *(
            f"| {label} | {' | '.join(map(str, row))} |"
            for label, row in zip(LABELS, metrics.confusion_matrix, strict=True)
        ),
        "",
        *_quantized_lines(manifest),
        "## Limits",
        "",
        _calibration_limit(manifest),
        "- Nothing in the model notices an image that is not a dermatoscopic one.",
        "- Recall differs much between classes (table above); rare classes were learnt from few "
        "lesions.",
        "- Heatmaps show where a network's evidence lies on a 7 x 7 grid, not why, and not "
        "where a lesion ends.",
        "",
        "## Licence",
        "",
        f"{manifest.license}",
        "",
    ]
    return "\n".join(lines)


def _quantized_lines(manifest: Manifest) -> list[str]:
    made = manifest.quantized
    if made is None:
        return []
    return [
        "## In 8 bits",
        "",
        f"`RUNTIME=openvino-int8` runs `openvino_int8/`, made by `python -m training quantize` "
        f"({made.tool}, commit `{made.git_commit}`) with {made.num_calibration_images} training "
        f"images. On the {made.num_images} validation images, beside float32: "
        f"{made.other_answers:.2%} of the answers name another class; a probability moves by "
        f"{made.median_change:.4f} (median of each image's largest change) and by "
        f"{made.largest_change:.4f} at most; the heatmaps' correlation is "
        f"{made.heatmap_correlation:.3f} (median). The figures above are of float32.",
        "",
        "| | float32 | 8 bits |",
        "|---|---|---|",
        f"| accuracy | {made.accuracy.before:.4f} | {made.accuracy.after:.4f} |",
        *(
            f"| recall of {label} | {made.recall[label].before:.4f} | "
            f"{made.recall[label].after:.4f} |"
            for label in LABELS
        ),
        "",
    ]


def _calibration_limit(manifest: Manifest) -> str:
    calibration = manifest.calibration
    if calibration is None:
        return (
            "- The probabilities are the softmax's own and are not calibrated: 0.9 does not mean "
            "that nine in ten such answers are right."
        )
    return (
        f"- The probabilities were calibrated by one temperature ({calibration.temperature}) on "
        f"{calibration.num_images} validation images (expected calibration error "
        f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after); on images "
        "from elsewhere they may mean less."
    )


_LEAK: Final = {
    "lesion": ", no lesion in two parts",
    "paper": "; by image, so that photographs of one lesion fall into several parts and the "
    "figures below flatter the model",
}


def _origins(recipe: dict[str, Any]) -> str:
    """The artifacts that a model was made from; manifests before these fields have none."""
    words = ""
    if recipe.get("initial_model"):
        words += f"All weights began as those of `{recipe['initial_model']}`. "
    if recipe.get("teacher"):
        words += (
            f"`{recipe['teacher']}` taught it: {recipe['distillation_weight']:.0%} of the loss, "
            f"temperature {recipe['distillation_temperature']:g}. "
        )
    return words


def _stage(stage: dict[str, Any]) -> str:
    steps = stage["steps_per_epoch"]
    limit = "" if steps is None else f" of {steps} steps"
    return f"{stage['max_epochs']} x {stage['image_size']} px{limit}"


def _code(process: TrainingProcess) -> str:
    if process.git_commit is None:
        return "code before its first commit"
    return f"commit `{process.git_commit}`{'' if process.clean else ' with later changes'}"


def _cells(interval: Interval) -> str:
    return f"{interval.value:.4f} | {interval.low:.4f} to {interval.high:.4f}"


def _short(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
