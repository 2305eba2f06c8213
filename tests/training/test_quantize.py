"""The 8-bit form: made by the real tool, compared, written whole or not at all."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pytest
import tensorflow as tf

from app.domain.labels import NUM_CLASSES
from app.domain.manifest import (
    MODEL_CARD_NAME,
    QUANTIZED_NAME,
    GoldenExample,
    Quantized,
    read_manifest,
)
from app.inference.models import load_model
from app.inference.runtimes import engine_maker
from tests.tiny_artifact import write_tiny_artifact
from training import quantize as quantization
from training.export import verify
from training.prepare import Part, PreparedData
from training.quantize import Answers, QuantizationError, compare, quantize, require_quality
from training.quantized_graph import shift_logits

COMMIT = "1" * 40
FLOAT = np.float32


class ConvolutionalModel(tf.Module):
    """Two convolutions in half precision with normalisation between, as exported graphs have."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(5)

        def kernel(*shape: int) -> tf.Variable:
            values = random.normal(0.0, 1.0 / np.sqrt(np.prod(shape[:-1])), shape)
            return tf.Variable(values.astype(np.float16), trainable=False)

        self.first, self.second = kernel(8, 8, 3, 16), kernel(4, 4, 16, 32)
        self.head = kernel(32, NUM_CLASSES)
        self.scale = tf.Variable(random.uniform(0.5, 2.0, 16).astype(FLOAT), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        first, second, head = (tf.cast(v, tf.float32) for v in (self.first, self.second, self.head))
        maps = tf.nn.relu(tf.nn.conv2d(tf.cast(image, tf.float32) / 255.0, first, 8, "SAME"))
        maps = tf.nn.relu(tf.nn.conv2d(maps * self.scale, second, 4, "SAME"))
        features = tf.reduce_mean(maps, axis=(1, 2))
        logits = 20.0 * (features @ head)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class_activation": tf.einsum("bhwk,kc->bchw", maps, head),
            "features": features,
        }


@pytest.fixture
def artifact(tmp_path: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A convolutional artifact of the synthetic dataset; one image more or less wrong may be."""
    monkeypatch.setattr(quantization, "MAX_ACCURACY_LOSS", 1.0)
    monkeypatch.setattr(quantization, "MAX_RECALL_LOSS", 1.0)
    return write_tiny_artifact(
        tmp_path,
        "tiny",
        model=ConvolutionalModel(),
        split_fingerprint=data.split_fingerprint,
        data_fingerprint=data.fingerprint,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_form_is_in_8_bits_and_answers_nearly_as_float32(
    artifact: Path, data: PreparedData
) -> None:
    done: list[tuple[int, int]] = []
    made = quantize(artifact, data, lambda *progress: done.append(progress), git_commit=COMMIT)

    manifest = verify(artifact)
    assert manifest.quantized == made
    assert done[-1][0] == done[-1][1] == 2 * made.num_images
    graph = (artifact / QUANTIZED_NAME).read_text()
    assert graph.count('type="FakeQuantize"') >= 2
    assert graph.count('element_type="i8"') == 2  # both kernels, and nothing of the head
    assert made.heatmap_correlation > 0.98
    assert 0.0 < made.median_change <= made.largest_change < 0.2
    images = data.images[:16]
    float32, in_8_bits = (
        load_model(artifact, engine_maker(runtime)).engine.predict(images)["logits"]
        for runtime in ("openvino", "openvino-int8")
    )
    assert 0.0 < np.abs(in_8_bits - float32).max() < 0.1 * np.abs(float32).max()
    card = (artifact / MODEL_CARD_NAME).read_text()
    assert f"{made.accuracy.after:.4f}" in card
    assert made.tool in card
    assert sorted(path.name for path in artifact.parent.parent.iterdir()) == ["tiny"]

    with pytest.raises(QuantizationError, match="has an 8-bit form"):
        quantize(artifact, data, lambda *_: None, git_commit=COMMIT)


def test_rounding_does_not_move_the_mean_of_the_answers(artifact: Path, data: PreparedData) -> None:
    quantize(artifact, data, lambda *_: None, git_commit=COMMIT)
    images = data.images[data.rows(Part.TRAIN)]  # fewer than the ranges may have
    logits = [
        load_model(artifact, engine_maker(runtime)).engine.predict(images)["logits"]
        for runtime in ("openvino", "openvino-int8")
    ]
    scatter = np.abs(logits[1] - logits[0]).mean()
    assert np.abs((logits[1] - logits[0]).mean(axis=0)).max() < 0.02 * scatter


def test_shifted_logits_are_those_of_the_probabilities(artifact: Path) -> None:
    model = openvino.Core().read_model(str(artifact))
    images = np.full((2, 224, 224, 3), 90, np.uint8)
    before = openvino.compile_model(model, "CPU")({"image": images})["logits"].copy()
    shift = np.linspace(-3.0, 3.0, NUM_CLASSES, dtype=FLOAT)
    shift_logits(model, shift)
    assert len(model.outputs) == 4
    after = openvino.compile_model(model, "CPU")({"image": images})
    np.testing.assert_allclose(after["logits"], before + shift, atol=1e-4)
    np.testing.assert_allclose(
        after["probabilities"], tf.nn.softmax(before + shift).numpy(), atol=1e-5
    )


def test_a_form_that_answers_worse_is_not_written(
    artifact: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MAX_ACCURACY_LOSS", -1.0)
    before = contents(artifact.parent.parent)
    with pytest.raises(QuantizationError, match="nothing was written: accuracy falls from"):
        quantize(artifact, data, lambda *_: None, git_commit=COMMIT)
    assert contents(artifact.parent.parent) == before


def test_an_artifact_that_cannot_be_exchanged_stays(
    artifact: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(artifact.parent.parent)
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == artifact.resolve() and path.name != "replaced":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(artifact, data, lambda *_: None, git_commit=COMMIT)
    assert contents(artifact.parent.parent) == before


def test_an_artifact_that_a_kill_left_aside_is_named(artifact: Path, data: PreparedData) -> None:
    aside = artifact.parent.parent / ".quantize-x" / "replaced"
    aside.parent.mkdir()
    artifact.rename(aside)
    with pytest.raises(QuantizationError, match="Put it back: mv ") as caught:
        quantize(artifact, data, lambda *_: None, git_commit=COMMIT)
    assert str(aside) in str(caught.value)
    aside.rename(artifact)


def test_another_split_is_refused(tmp_path: Path, data: PreparedData) -> None:
    artifact = write_tiny_artifact(tmp_path, "tiny", model=ConvolutionalModel())
    with pytest.raises(ValueError, match="another split"):
        quantize(artifact, data, lambda *_: None, git_commit=COMMIT)


def answers(named: list[int], maps: npt.NDArray[np.float32] | None = None) -> Answers:
    probabilities = np.full((len(named), NUM_CLASSES), 0.05, FLOAT)
    probabilities[np.arange(len(named)), named] = 0.7
    if maps is None:
        maps = np.random.default_rng(0).normal(size=(7, 7)).astype(FLOAT)
    return Answers(probabilities, np.broadcast_to(maps, (len(named), NUM_CLASSES, 7, 7)))


def compared(labels: list[int], before: Answers, after: Answers) -> Quantized:
    golden = GoldenExample(probabilities=[1.0] + [0.0] * 6, tolerance=1e-3)
    return compare(
        np.array(labels),
        before,
        after,
        tool="none",
        git_commit=COMMIT,
        num_calibration_images=1,
        golden_example=golden,
    )


def test_figures_of_the_comparison() -> None:
    labels = [0, 0, 1, 2, 3, 4, 5, 6]
    made = compared(labels, answers(labels), answers([0, 1, 1, 2, 3, 4, 5, 5]))
    assert (made.accuracy.before, made.accuracy.after) == (1.0, 0.75)
    assert (made.recall["akiec"].before, made.recall["akiec"].after) == (1.0, 0.5)
    assert made.recall["vasc"].after == 0.0
    assert made.other_answers == 0.25
    assert made.median_change == 0.0
    assert made.largest_change == pytest.approx(0.65)
    assert made.heatmap_correlation == pytest.approx(1.0)


def test_heatmaps_are_compared_for_the_class_that_float32_answers() -> None:
    labels = list(range(NUM_CLASSES))
    maps = np.random.default_rng(1).normal(size=(7, 7)).astype(FLOAT)
    made = compared(labels, answers(labels, maps), answers(labels, -2.0 * maps))
    assert made.heatmap_correlation == pytest.approx(-1.0)
    flat = compared(labels, answers(labels, maps), answers(labels, np.ones((7, 7), FLOAT)))
    assert flat.heatmap_correlation == 0.0


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [(0, None), (1, None), (3, "accuracy falls from 1.0000 to 0.9925, by more than 0.005")],
)
def test_quality_bounds_on_accuracy(wrong: int, refused: str | None) -> None:
    labels = [5] * 340 + [0, 1, 2, 3, 4, 6] * 10
    made = compared(labels, answers(labels), answers([0] * wrong + labels[wrong:]))
    if refused is None:
        require_quality(made)
    else:
        with pytest.raises(QuantizationError, match=refused):
            require_quality(made)


def test_quality_bounds_on_a_rare_class() -> None:
    labels = [5] * 1000 + [0, 1, 2, 3, 4, 6] * 10
    made = compared(labels, answers(labels), answers(labels[:-1] + [5]))
    with pytest.raises(QuantizationError, match=r"recall of vasc falls from 1\.0000 to 0\.9000"):
        require_quality(made)


def test_the_shipped_forms_are_within_the_bounds() -> None:
    for path in sorted(Path("models").glob("*/*/")):
        manifest, _ = read_manifest(path.resolve())
        if manifest.quantized is not None:
            require_quality(manifest.quantized)
