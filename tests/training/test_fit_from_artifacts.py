"""Training with a teacher and from an initial model."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tiny_artifact import write_tiny_artifact
from tests.training.tiny_recipe import TINY
from training.architectures import build_hybrid
from training.config import Stage
from training.evaluate import load_graph, measure_as_trained
from training.fit import fit
from training.inference_graph import InferenceGraph
from training.prepare import Part, PreparedData
from training.progress import Progress
from training.run_folder import (
    RunError,
    best_weights,
    interpolated_weights,
    read_history,
    read_state,
)

SHORT = replace(TINY, stages=(Stage(32, 1, 1e-3, 3),), batch_size=8)


class KilledError(Exception):
    pass


def kill_at_two(progress: Progress, _steps: int, _loss: float) -> None:
    if progress.step == 2:
        raise KilledError


def write_initial_model(source: keras.Model, data: PreparedData, folder: Path) -> Path:
    """An artifact with the weights of a hybrid of `SHORT` at 224 pixels."""
    return write_tiny_artifact(
        folder / "models",
        "tiny",
        attention=True,
        model=InferenceGraph(source),
        split_fingerprint=data.split_fingerprint,
        recipe=SHORT.to_json(),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
@pytest.mark.parametrize("metadata", [False, True], ids=["image", "metadata"])
def test_a_distilled_run_resumes_with_its_teacher_and_no_other(
    data: PreparedData, tmp_path: Path, metadata: bool
) -> None:
    teacher = write_tiny_artifact(
        tmp_path / "models", "teacher", split_fingerprint=data.split_fingerprint
    )
    recipe = replace(
        SHORT,
        teacher=str(teacher),
        distillation_weight=0.5,
        distillation_temperature=2.0,
        metadata=metadata,
        mixup=0.2,
    )
    run = tmp_path / "run"

    with pytest.raises(KilledError):
        fit(recipe, data, run, checkpoint_seconds=0.0, report_step=kill_at_two)
    state = read_state(run)
    assert state is not None
    keys = [key for key, _ in tf.train.list_variables(str(run / state[0] / "checkpoint"))]
    assert not [key for key in keys if "teacher" in key]

    result = fit(recipe, data, run)
    assert (result.steps, result.epochs) == (3, 1)
    (line,) = read_history(run)
    assert line["loss"] > line["validation_loss"] > 0  # T^2 = 4 times the teacher's entropy
    build_hybrid(recipe, 32).load_weights(best_weights(run, 0))

    manifest = teacher / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(RunError, match="another"):
        fit(recipe, data, run)


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_a_run_with_hints_resumes_with_what_it_learnt_to_tell(
    data: PreparedData, tmp_path: Path
) -> None:
    teacher = write_initial_model(build_hybrid(SHORT, 224), data, tmp_path)
    recipe = replace(
        SHORT,
        teacher=str(teacher),
        distillation_weight=0.5,
        distillation_temperature=2.0,
        hint_weight=3.0,
        initial_model=str(teacher),
        stages=(Stage(32, 1, 1e-2, 4),),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fit(recipe, data, whole)

    with pytest.raises(KilledError):
        fit(recipe, data, killed, checkpoint_seconds=0.0, report_step=kill_at_two)
    state = read_state(killed)
    assert state is not None
    checkpoint = tf.train.load_checkpoint(str(killed / state[0] / "checkpoint"))
    own = len(build_hybrid(SHORT, 32).trainable_variables)
    projections = [
        checkpoint.get_tensor(
            f"optimizer/_trainable_variables/{own + i}/.ATTRIBUTES/VARIABLE_VALUE"
        )
        for i in range(6)  # three kernels, each with its bias
    ]
    assert [values.ndim for values in projections] == [2, 1] * 3
    assert all(np.abs(values).max() > 0 for values in projections)  # they began at 0
    fit(recipe, data, killed)
    (expected,), (received,) = read_history(whole), read_history(killed)
    for name in ("loss", "validation_loss"):
        assert received[name] == pytest.approx(expected[name], rel=1e-3)
    # What is kept is the hybrid; the projections are the run's.
    build_hybrid(SHORT, 224).load_weights(best_weights(killed, 0))
    without = tmp_path / "without"
    fit(replace(recipe, hint_weight=0.0), data, without)
    (plain,) = read_history(without)
    assert expected["loss"] > plain["loss"] + 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_a_run_begins_with_its_initial_model(data: PreparedData, tmp_path: Path) -> None:
    keras.utils.set_random_seed(7)
    source = build_hybrid(SHORT, 224)
    artifact = write_initial_model(source, data, tmp_path)
    # A rate at which nothing moves shows what the run began with; its own seed is another.
    recipe = replace(SHORT, initial_model=str(artifact), stages=(Stage(32, 1, 1e-12, 1),))
    fit(recipe, data, tmp_path / "run")
    trained = build_hybrid(SHORT, 32)
    trained.load_weights(best_weights(tmp_path / "run", 0))
    for name in ("head_1", "logits", "cnn_1_conv"):
        np.testing.assert_allclose(
            trained.get_layer(name).kernel.numpy(),
            source.get_layer(name).kernel.numpy(),
            rtol=1e-3,
            atol=1e-6,
        )
    wider = replace(recipe, cnn_filters=(8,))
    with pytest.raises(ValueError, match="name an initial model"):
        fit(wider, data, tmp_path / "wider")


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_a_run_is_judged_by_weights_between_its_own_and_its_initial_models(
    data: PreparedData, tmp_path: Path
) -> None:
    source = build_hybrid(SHORT, 224)
    artifact = write_initial_model(source, data, tmp_path)
    recipe = replace(
        SHORT, initial_model=str(artifact), initial_share=0.75, stages=(Stage(32, 1, 1e-2, 1),)
    )
    run = tmp_path / "run"
    result = fit(recipe, data, run)
    learnt, kept = build_hybrid(SHORT, 224), build_hybrid(SHORT, 224)
    learnt.load_weights(best_weights(run, 0))
    kept.load_weights(interpolated_weights(run))
    for name in ("head_1", "logits"):
        own, began, between = (
            network.get_layer(name).kernel.numpy() for network in (learnt, source, kept)
        )
        assert np.abs(own - began).max() > 5e-3
        np.testing.assert_allclose(between, 0.75 * began + 0.25 * own, rtol=1e-3, atol=1e-5)
    for stored, expected in zip(load_graph(run).stored, InferenceGraph(kept).stored, strict=True):
        if expected.shape.rank > 1:  # all but biases, averages and a dropout layer's seed
            np.testing.assert_array_equal(stored.numpy(), expected.numpy())
    assert result.best_validation_accuracy == pytest.approx(
        measure_as_trained(run, data, Part.VALIDATION).accuracy.value, abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_recipe_says_whether_its_artifact_is_mirrored(
    data: PreparedData, tmp_path: Path, mirrored: bool
) -> None:
    recipe = replace(SHORT, mirrored=mirrored, stages=(Stage(32, 1, 1e-2, 1),))
    fit(recipe, data, tmp_path / "run")
    graph = load_graph(tmp_path / "run")
    # As far as its one step has taken it, the network sees which way is up in noise alone.
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    image[:, :112] //= 2
    upright, turned = (
        graph.serve(tf.constant(picture))["logits"].numpy() for picture in (image, image[:, ::-1])
    )
    change, rounding = np.abs(upright - turned).max(), 1e-5 * np.abs(upright).max()
    assert (change < rounding) == mirrored
