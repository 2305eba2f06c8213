"""Draw the README's picture: a synthetic lesion under both committed models' heatmaps.

`python -m training.readme_figure` writes `docs/images/heatmaps.png`.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import tensorflow as tf

from app.domain.heatmaps import (
    Heatmap,
    attention_heatmap,
    draw_overlay,
    encode_png,
    grad_cam_heatmap,
)
from app.domain.images import RgbImage, to_model_input
from app.domain.labels import CLASS_INDEX, LABELS
from training.inference_graph import SIGNATURE
from training.synthetic import draw_lesion

OUTPUT: Final = Path("docs/images/heatmaps.png")
ARTIFACTS: Final = (
    Path("models/cnn_resnet50v2_attention/1"),
    Path("models/cnn_densenet121/1"),
)
_SEED: Final = 11
_WHITE: Final = (255, 255, 255)


def main() -> None:
    """Write the picture."""
    picture = draw_lesion(_SEED, CLASS_INDEX["nv"])
    panels = [_label(picture, "drawn lesion")]
    for artifact in ARTIFACTS:
        heatmap, words = _explain(artifact, picture)
        panels.append(_label(draw_overlay(picture, heatmap), words))
    sheet = np.concatenate(panels, axis=1)
    small = cv2.resize(
        sheet, (sheet.shape[1] // 2, sheet.shape[0] // 2), None, 0, 0, cv2.INTER_AREA
    )
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_bytes(encode_png(np.asarray(small, np.uint8)))


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
