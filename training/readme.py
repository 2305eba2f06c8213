"""Bring the README up to date with the committed models: `python -m training.readme`.

Writes the tables of results and of decisions from the manifests, and
`docs/images/heatmaps.png`: a synthetic lesion under every hybrid's heatmap.
"""

import json
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import tensorflow as tf

from app.domain.ensemble import ENSEMBLE_NAME, EnsembleManifest, read_ensemble
from app.domain.heatmaps import (
    Heatmap,
    attention_heatmap,
    draw_overlay,
    encode_png,
    grad_cam_heatmap,
)
from app.domain.images import RgbImage, to_model_input
from app.domain.labels import CLASS_INDEX, LABELS
from app.domain.manifest import Manifest, read_manifest
from training.inference_graph import SIGNATURE
from training.markdown import in_words
from training.novelty_page import SOURCE as NOVELTY
from training.report import malignant_among_reported, reported_benign
from training.served import title_of
from training.synthetic import draw_lesion

README: Final = Path("README.md")
PICTURE: Final = Path("docs/images/heatmaps.png")
MODELS: Final = Path("models")
NAMES: Final = ("cnn_efficientnet_lite0", "cnn_densenet121", "cnn_resnet50v2_attention")

_SECTIONS: Final = ("results", "decisions")
_SEED: Final = 11
_WHITE: Final = (255, 255, 255)


def main() -> None:
    """Rewrite the tables and the picture."""
    text = README.read_text(encoding="utf-8")
    for name, table in zip(_SECTIONS, (results_table(), decisions_table()), strict=True):
        begin, end = f"<!-- {name}: python -m training.readme -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = before + begin + table + end + after
    README.write_text(text, encoding="utf-8")
    PICTURE.write_bytes(encode_png(_draw_picture([newest_artifact(name) for name in NAMES])))


def newest_artifact(name: str) -> Path:
    """The highest version of a committed model."""
    return max((MODELS / name).iterdir(), key=lambda path: int(path.name))


def served() -> list[Manifest | EnsembleManifest]:
    """Everything that answers, the default model first."""
    return [
        *(read_manifest(newest_artifact(name))[0] for name in NAMES),
        read_ensemble(MODELS / ENSEMBLE_NAME),
    ]


def results_table() -> str:
    """Measured quality of the committed models as a Markdown table."""
    lines = [
        "| model | accuracy | balanced accuracy | melanomas found as the most probable class | "
        "found at the melanoma threshold | its specificity |",
        "|---|---|---|---|---|---|",
    ]
    for manifest in served():
        metrics = manifest.metrics
        figures = (metrics.accuracy, metrics.balanced_accuracy, metrics.per_class["mel"].recall)
        point = metrics.operating_points[0]
        assert (point.target, point.required_sensitivity) == ("melanoma", 0.9)  # noqa: S101
        cells = " | ".join(in_words(f, 3) for f in (*figures, point.sensitivity, point.specificity))
        lines.append(f"| {title_of(manifest)} | {cells} |")
    metrics = served()[0].metrics
    lines += [
        "",
        f"{metrics.num_images} images of the {metrics.part} part, protocol `lesion` (no lesion in "
        "two parts);",
        "95 % bootstrap intervals over lesions; measured once per recipe by "
        "`python -m training evaluate`, the ensemble's once",
        "a version by `python -m training ensemble`. The threshold is the one that finds 90 %",
        "of the melanomas of the validation part.",
    ]
    return "\n".join(lines) + "\n"


def decisions_table() -> str:
    """What becomes of test images, and of pictures of other things, as a Markdown table."""
    novelty: dict[str, Any] = json.loads(NOVELTY.read_text(encoding="utf-8"))
    lines = [
        "| of the test images | reported | referred | rejected | right of what is reported | "
        "malignant of what is reported as benign | malignant, reported as benign | "
        f"of {novelty['num_pictures']} other pictures rejected |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for manifest in served():
        rules = manifest.decision
        if rules is None:
            lines.append(f"| {title_of(manifest)} | none: no rules were measured | | | | | | |")
            continue
        found = rules.outcome
        shares = " | ".join(f"{v:.1%}" for v in (found.reported, found.referred, found.rejected))
        refused = novelty["models"][title_of(manifest)]["refused"]
        lines.append(
            f"| {title_of(manifest)} | {shares} | {in_words(found.accuracy, 3)} | "
            f"{malignant_among_reported(found, manifest.metrics.num_images)} | "
            f"{reported_benign(found)} | {refused:.1%} |"
        )
    return "\n".join(lines) + "\n"


def _draw_picture(artifacts: list[Path]) -> RgbImage:
    picture = draw_lesion(_SEED, CLASS_INDEX["nv"])
    panels = [_label(picture, "drawn lesion")]
    for artifact in artifacts:
        heatmap, words = _explain(artifact, picture)
        panels.append(_label(draw_overlay(picture, heatmap), words))
    sheet = np.concatenate(panels, axis=1)
    half = (sheet.shape[1] // 2, sheet.shape[0] // 2)
    return np.asarray(cv2.resize(sheet, half, interpolation=cv2.INTER_AREA), np.uint8)


def _explain(artifact: Path, picture: RgbImage) -> tuple[Heatmap, str]:
    """The heatmap that the service would show, and what it is."""
    model = tf.saved_model.load(str(artifact))
    outputs = {
        name: values.numpy()[0]
        for name, values in model.signatures[SIGNATURE](
            image=tf.constant(to_model_input(picture)[None])
        ).items()
    }
    answer = int(outputs["probabilities"].argmax())
    if "attention" in outputs:
        return attention_heatmap(outputs["attention"]), "attention"
    return grad_cam_heatmap(outputs["class_activation"], answer), f"Grad-CAM {LABELS[answer]}"


def _label(pixels: RgbImage, words: str) -> RgbImage:
    framed = cv2.copyMakeBorder(pixels, 50, 6, 6, 6, cv2.BORDER_CONSTANT, value=_WHITE)
    cv2.putText(framed, words, (12, 36), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (0, 0, 0), 2, cv2.LINE_AA)
    return np.asarray(framed, np.uint8)


if __name__ == "__main__":
    main()
