"""Artifacts answer within training's graph, and give their weights back."""

import gc
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.domain.errors import ArtifactDigestError
from tests.tiny_artifact import TinyModel, write_tiny_artifact
from tests.training.tiny_recipe import TINY
from training.architectures import build_hybrid
from training.artifacts import assign_stored, load_answers, load_lessons
from training.distillation import DistilledHybrid, answers_alone
from training.hints import hint_maps
from training.inference_graph import InferenceGraph, stored_variables
from training.synthetic import draw_lesion

IMAGES = np.stack([draw_lesion(seed, seed, 224, 224) for seed in (0, 4)])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_teacher_answers_within_a_graph_as_the_artifact_does(
    tmp_path: Path, compiled: bool
) -> None:
    folder = write_tiny_artifact(tmp_path, "tiny", seed=3)
    answer = load_answers(folder, compiled=compiled)
    model = TinyModel(attention=False, seed=3)
    expected = model.serve(IMAGES)["logits"]
    received = tf.function(answer)(tf.constant(IMAGES))
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_teacher_shows_the_maps_that_its_answers_are_made_of(
    tmp_path: Path, compiled: bool
) -> None:
    keras.utils.set_random_seed(1)
    hybrid = build_hybrid(TINY, 224)
    folder = write_tiny_artifact(
        tmp_path, "tiny", attention=True, model=InferenceGraph(hybrid), recipe=TINY.to_json()
    )
    lesson, channels = load_lessons(folder, compiled=compiled)
    gc.collect()  # what the network was converted from is gone, and its memory is others'
    others = [tf.fill(v.shape, np.float32(np.nan)) for v in hybrid.variables for _ in range(20)]
    logits, maps = tf.function(lesson, jit_compile=compiled)(tf.constant(IMAGES))
    view = keras.Model(hybrid.input, [hybrid.output, *hint_maps(hybrid)])
    expected = view(IMAGES.astype(np.float32) / 255.0)
    assert others
    assert channels == tuple(each.shape[-1] for each in maps)
    for received, value in zip([logits, *maps], expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=2e-2, atol=2e-3)  # half precision


def test_an_artifact_of_another_kind_shows_no_maps(tmp_path: Path) -> None:
    folder = write_tiny_artifact(tmp_path, "tiny")
    with pytest.raises(ValueError, match="by its answers alone; set hint_weight=0"):
        load_lessons(folder, compiled=False)


def test_a_mirrored_artifact_shows_no_maps(tmp_path: Path) -> None:
    folder = write_tiny_artifact(tmp_path, "tiny", recipe=replace(TINY, mirrored=True).to_json())
    with pytest.raises(ValueError, match="name a teacher that is not mirrored"):
        load_lessons(folder, compiled=False)


def test_a_teacher_answers_within_xla_as_gpus_compile_it(tmp_path: Path) -> None:
    folder = write_tiny_artifact(tmp_path, "tiny", seed=3)
    images = IMAGES[:, ::4, ::4].astype(np.float32) / 255.0
    losses = []
    for compiled in (False, True):
        keras.utils.set_random_seed(1)
        image = keras.Input((56, 56, 3))
        student = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(image)))
        model = DistilledHybrid(
            student,
            answers_alone(load_answers(folder, compiled=compiled)),
            weight=0.6,
            temperature=2.0,
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=compiled)
        labels = np.eye(7, dtype=np.float32)[[0, 4]]
        losses.append([model.train_on_batch(images[:n], labels[:n]) for n in (2, 2, 1)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_damaged_artifact_teaches_nothing_and_begins_nothing(tmp_path: Path) -> None:
    folder = write_tiny_artifact(tmp_path, "tiny")
    (folder / "MODEL_CARD.md").write_text("another")
    with pytest.raises(ArtifactDigestError):
        load_answers(folder, compiled=False)
    with pytest.raises(ArtifactDigestError):
        assign_stored(build_hybrid(TINY, 32), folder)


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_weights_come_back_in_half_precision_and_only_into_the_same_layers(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    model = build_hybrid(TINY, 224)
    random = np.random.default_rng(0)
    for variable in stored_variables(model):
        if variable.name != "moving_variance" and variable.dtype == "float32":
            variable.assign_add(random.normal(0, 0.01, variable.shape))
    folder = write_tiny_artifact(tmp_path, "tiny", attention=True, model=InferenceGraph(model))

    # Another image size, and layers that are not trained, keep the order.
    other = build_hybrid(replace(TINY, initial_model=str(folder), frozen_layers=30), 32)
    seeds = [v.numpy() for v in other.variables if v.dtype != "float32"]
    assign_stored(other, folder)
    assert len(seeds) == 2
    kept = [v.numpy() for v in other.variables if v.dtype != "float32"]
    np.testing.assert_array_equal(kept, seeds)
    for expected, received in zip(stored_variables(model), stored_variables(other), strict=True):
        if expected.dtype != "float32":
            continue
        assert expected.path == received.path
        tolerance = 1e-3 if len(expected.shape) > 1 else 0.0
        np.testing.assert_allclose(received.numpy(), expected.numpy(), rtol=tolerance, atol=1e-6)

    without = build_hybrid(replace(TINY, attention=False), 32)
    with pytest.raises(ValueError, match="same backbone"):
        assign_stored(without, folder)
    wider = build_hybrid(replace(TINY, cnn_filters=(8,)), 32)
    before = [variable.numpy() for variable in stored_variables(wider)]
    with pytest.raises(ValueError, match=r"\(3, 3, 3, 4\), .*cnn_1_conv/kernel.*\(3, 3, 3, 8\)"):
        assign_stored(wider, folder)
    for value, variable in zip(before, stored_variables(wider), strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
