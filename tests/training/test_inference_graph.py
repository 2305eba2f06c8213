"""The exported graph computes what the trained network computes, and a true Grad-CAM."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.domain.golden import check_outputs
from app.domain.heatmaps import grad_cam_heatmap
from app.domain.manifest import Runtime
from app.inference.runtimes import engine_maker
from app.inference.tensorflow_engine import TensorFlowEngine
from training.architectures import BACKBONE_MAPS, build_hybrid
from training.artifacts import assign_stored
from training.config import Backbone, CnnReduction, Recipe
from training.export import save_graph
from training.inference_graph import InferenceGraph
from training.readme import newest_artifact
from training.synthetic import draw_lesion

RESNET = Recipe(
    "resnet", Backbone.RESNET50V2, attention=True, backbone_weights="none", frozen_layers=0
)
DENSENET = replace(RESNET, name="densenet", backbone=Backbone.DENSENET121, attention=False)
LITE = replace(RESNET, name="lite", backbone=Backbone.EFFICIENTNET_LITE0, cnn_filters=(16, 32, 64))
TEMPERATURE = 1.7
IMAGES = np.stack([draw_lesion(seed, seed, 224, 224) for seed in (0, 4)])


def half(model: keras.Model) -> keras.Model:
    """Round a model's kernels as the artifact stores them; give biases some effect."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        value = variable.numpy()
        if value.ndim > 1:
            value = value.astype(np.float16).astype(np.float32)
        elif variable.name == "bias":
            value = random.normal(0, 0.05, value.shape).astype(np.float32)
        variable.assign(value)
    return model


def gradient_tape_grad_cam(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Selvaraju et al., ICCV 2017, equations 1 and 2, for all classes."""
    maps_layer = model.get_layer(BACKBONE_MAPS)
    head = keras.Model(model.input, [maps_layer.output, model.output])
    maps_of_classes = []
    with tf.GradientTape(persistent=True) as tape:
        maps, logits = head(tf.constant(images, tf.float32) / 255.0, training=False)
        scores = [logits[:, index] for index in range(7)]
    for score in scores:
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2))
        maps_of_classes.append(tf.nn.relu(tf.einsum("bhwk,bk->bhw", maps, weights)).numpy())
    return np.stack(maps_of_classes, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [DENSENET, RESNET, LITE], ids=["densenet", "resnet", "lite"])
def test_saved_graph_answers_like_keras_and_its_maps_are_grad_cam(
    recipe: Recipe, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    model = half(build_hybrid(recipe, 224))
    graph = InferenceGraph(model, TEMPERATURE)
    save_graph(graph, tmp_path / "model")
    outputs = TensorFlowEngine(tmp_path / "model").predict(IMAGES)

    check_outputs(outputs, 2, has_attention=recipe.attention)
    assert set(outputs) == {
        "logits",
        "probabilities",
        "class_activation",
        "features",
        *(["attention"] if recipe.attention else []),
    }
    logits = model(IMAGES.astype(np.float32) / 255.0, training=False).numpy()
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3  # the images are told apart
    calibrated = tf.nn.softmax(outputs["logits"] / TEMPERATURE).numpy()
    np.testing.assert_allclose(outputs["probabilities"], calibrated, atol=1e-6)

    expected = gradient_tape_grad_cam(model, IMAGES)
    assert expected.max() > 0
    for row in range(2):
        for index in range(7):
            received = grad_cam_heatmap(outputs["class_activation"][row], index).values
            np.testing.assert_allclose(received, expected[row, index], atol=1e-4 * expected.max())

    size = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*") if path.is_file())
    assert size <= 4.1 * model.count_params() + 5e6
    keras.backend.clear_session()


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_a_mirrored_graph_answers_with_the_mean_over_the_four_mirrorings(
    tmp_path: Path, runtime: Runtime
) -> None:
    model = build_hybrid(LITE, 224)
    assign_stored(model, newest_artifact("cnn_efficientnet_lite0"))  # random weights see no lesion
    save_graph(InferenceGraph(model, TEMPERATURE), tmp_path / "plain")
    save_graph(InferenceGraph(model, TEMPERATURE, mirrored=True), tmp_path / "mirrored")
    plain = TensorFlowEngine(tmp_path / "plain")
    engine = engine_maker(runtime)(tmp_path / "mirrored")
    images = IMAGES.copy()
    images[:, :80], images[:, :, 150:] = 0, 255  # no two mirrorings of it are alike
    received = engine.predict(images)
    check_outputs(received, 2, has_attention=True)

    rows_and_columns: list[tuple[int, ...]] = [(), (-2,), (-1,), (-2, -1)]
    views = [
        plain.predict(np.flip(images, tuple(axis - 1 for axis in axes)))
        for axes in rows_and_columns
    ]
    for name in ("logits", "features", "class_activation", "attention"):
        back = [view[name] for view in views]
        if name in ("class_activation", "attention"):
            back = [np.flip(m, axes) for m, axes in zip(back, rows_and_columns, strict=True)]
        expected = np.mean(back, axis=0)
        spread = np.abs(back[0] - expected).max()
        assert spread > 100 * np.finfo(np.float32).eps * np.abs(expected).max(), name
        np.testing.assert_allclose(received[name], expected, atol=1e-2 * spread)
    calibrated = tf.nn.softmax(received["logits"] / TEMPERATURE).numpy()
    np.testing.assert_allclose(received["probabilities"], calibrated, atol=1e-6)

    upside_down = engine.predict(np.ascontiguousarray(images[:, ::-1]))
    np.testing.assert_allclose(upside_down["logits"], received["logits"], atol=1e-4)
    keras.backend.clear_session()


@pytest.mark.slow
def test_flatten_variant_trains_a_step_exports_and_serves(tmp_path: Path) -> None:
    model = build_hybrid(replace(LITE, cnn_reduction=CnnReduction.FLATTEN), 224)
    num_parameters = model.count_params()
    model.compile(
        keras.optimizers.SGD(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    before = model.get_layer("head_1").kernel.numpy().copy()
    model.train_on_batch(IMAGES.astype(np.float32) / 255.0, np.eye(7, dtype=np.float32)[[0, 4]])
    assert np.abs(model.get_layer("head_1").kernel.numpy() - before).max() > 0
    save_graph(InferenceGraph(model), tmp_path / "model")
    del model
    keras.backend.clear_session()
    outputs = TensorFlowEngine(tmp_path / "model").predict(IMAGES[:1])
    check_outputs(outputs, 1, has_attention=True)
    size = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*") if path.is_file())
    assert size <= 4.1 * num_parameters + 5e6
