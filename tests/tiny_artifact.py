"""Artifacts that keep the whole contract and take a second to make."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino
import tensorflow as tf

from app.domain.golden import golden_input
from app.domain.heatmaps import encode_png
from app.domain.images import to_model_input
from app.domain.labels import LABELS
from app.domain.manifest import (
    MANIFEST_NAME,
    MODEL_CARD_NAME,
    QUANTIZED_NAME,
    Change,
    GoldenExample,
    InputSpec,
    Manifest,
    Quantized,
    Training,
    file_sha256,
    read_manifest,
    write_manifest,
)
from app.domain.measurements import Calibration, ClassMetrics, Interval, Metrics
from app.domain.novelty import FeatureSpace, write_feature_space
from app.domain.rules import FEATURE_SPACE_NAME, DecisionRules
from training.synthetic import draw_lesion


class TinyModel(tf.Module):
    """Logits are a fixed map of the mean colour; the activation map is the darkness."""

    def __init__(self, *, attention: bool, seed: int) -> None:
        super().__init__()
        self.attention = attention
        kernel = np.random.default_rng(seed).normal(0, 4, (3, 7))
        self.kernel = tf.Variable(kernel.astype(np.float32), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        scaled = tf.cast(image, tf.float32) / 255.0
        maps = 1.0 - tf.nn.avg_pool2d(scaled, 32, 32, "VALID")
        features = tf.reduce_mean(maps, axis=(1, 2))
        logits = features @ self.kernel
        outputs = {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class_activation": tf.einsum("bhwk,kc->bchw", maps, self.kernel) / 49.0,
            "features": features,
        }
        if self.attention:
            outputs["attention"] = tf.reduce_mean(maps, axis=3)
        return outputs


NO_RECIPE: Mapping[str, Any] = {
    "backbone": "none",
    "backbone_weights": "none",
    "stages": [],
    "batch_size": 1,
}
TINY_CALIBRATION = Calibration(
    temperature=1.0, num_images=14, error_before=0.1, error_after=0.1, operating_points=[]
)


def tiny_metrics(value: float = 0.5) -> Metrics:
    interval = Interval(value=value, low=value - 0.1, high=value + 0.1)
    figures = ClassMetrics(
        precision=interval, recall=interval, f1=interval, roc_auc=interval, support=2
    )
    return Metrics(
        part="test",
        num_images=14,
        accuracy=interval,
        balanced_accuracy=interval,
        macro_f1=interval,
        per_class=dict.fromkeys(LABELS, figures),
        confusion_matrix=np.eye(7, dtype=int).tolist(),
    )


def write_tiny_artifact(
    models: Path,
    name: str,
    *,
    version: int = 1,
    attention: bool = False,
    seed: int = 0,
    calibration: Calibration | None = None,
    measured: float = 0.5,
    model: tf.Module | None = None,
    split_fingerprint: str = "0" * 64,
    data_fingerprint: str = "0" * 64,
    decision: DecisionRules | None = None,
    recipe: Mapping[str, Any] = NO_RECIPE,
) -> Path:
    """Write `models/<name>/<version>/`, whose figures are all `measured`.

    Of a tiny model, or of another one with the same method `serve`. With rules, grey pictures
    are what its training images span: the score is the distance from grey.
    """
    folder = models / name / str(version)
    model = model or TinyModel(attention=attention, seed=seed)
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
    picture = draw_lesion(seed, 4)
    (folder / "golden_input.png").write_bytes(encode_png(picture))
    (folder / MODEL_CARD_NAME).write_text("# Tiny\n", encoding="utf-8")
    if decision is not None:
        grey = np.full((1, 3), 3**-0.5, np.float32)
        write_feature_space(
            FeatureSpace(np.full(3, 0.5, np.float32), grey), folder / FEATURE_SPACE_NAME
        )
    image = tf.constant(to_model_input(picture)[None])
    probabilities = model.serve(image)["probabilities"][0].numpy()
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in folder.rglob("*")
        if path.is_file()
    }
    manifest = Manifest(
        name=name,
        version=version,
        title="Tiny",
        classes=list(LABELS),
        input=InputSpec(),
        num_parameters=21,
        has_attention=attention,
        git_commit="0" * 40,
        training=Training(
            recipe=dict(recipe),
            protocol="lesion",
            data_fingerprint=data_fingerprint,
            split_seed=1,
            split_fingerprint=split_fingerprint,
            processes=[],
            steps=0,
            epochs=0,
            seconds=0.0,
            hardware="none",
        ),
        calibration=calibration,
        metrics=tiny_metrics(measured),
        decision=decision,
        golden_example=GoldenExample(
            probabilities=[float(p) for p in probabilities], tolerance=1e-3
        ),
        license="CC0",
        files=files,
    )
    write_manifest(folder, manifest)
    return folder


def add_quantized(folder: Path, *, seed: int) -> None:
    """Give a tiny artifact an "8-bit form" that answers unlike it: another tiny model's graph."""
    manifest, _ = read_manifest(folder)
    model = TinyModel(attention=manifest.has_attention, seed=seed)
    with TemporaryDirectory() as scratch:
        tf.saved_model.save(model, scratch, signatures={"serving_default": model.serve})
        graph = openvino.Core().read_model(scratch)
        (folder / QUANTIZED_NAME).parent.mkdir()
        openvino.save_model(graph, folder / QUANTIZED_NAME, compress_to_fp16=False)
    outputs = model.serve(tf.constant(golden_input(folder, manifest)))
    same = Change(before=0.5, after=0.5)
    quantized = Quantized(
        tool="none",
        git_commit="0" * 40,
        num_calibration_images=1,
        num_images=14,
        accuracy=same,
        recall=dict.fromkeys(LABELS, same),
        other_answers=0.0,
        median_change=0.0,
        largest_change=0.0,
        heatmap_correlation=1.0,
        golden_example=GoldenExample(
            probabilities=[float(p) for p in outputs["probabilities"][0].numpy()], tolerance=1e-3
        ),
    )
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST_NAME
    }
    write_manifest(folder, manifest.model_copy(update={"quantized": quantized, "files": files}))
