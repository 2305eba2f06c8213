"""Training: rates, averages, resumption."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import progress as progress_rules
from training.architectures import build_hybrid
from training.config import Stage
from training.fit import fit
from training.optimizers import DiscriminativeAdam, averaged, build_optimizer
from training.prepare import Part, PreparedData
from training.progress import Progress
from training.recipes.catalog import RECIPES
from training.run_folder import read_history
from training.steps import limit_momentum

RECIPE = replace(
    RECIPES["lite-efficientnet-lite0"],
    stages=(Stage(32, 2, 1e-2, 3),),
    batch_size=8,
    backbone_weights="none",
    frozen_layers=0,
)


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_averages_schedule_rates_and_draws_survive_an_interruption(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_rules, "LAG_SHARE", 1.0)  # a tenth of six steps has no average
    fit(RECIPE, data, tmp_path / "whole")

    def die(progress: Progress, _steps: int, _loss: float) -> None:
        if (progress.epoch, progress.step) == (1, 2):
            raise KilledError

    with pytest.raises(KilledError):
        fit(RECIPE, data, tmp_path / "cut", checkpoint_seconds=0, report_step=die)
    fit(RECIPE, data, tmp_path / "cut")
    for name in ("loss", "validation_loss", "learning_rate"):
        whole, cut = (
            [line[name] for line in read_history(tmp_path / run)] for run in ("whole", "cut")
        )
        assert len(whole) == 2
        assert cut == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_the_graph_of_a_step_is_made_once(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []
    compute_loss = keras.Model.compute_loss

    def count(model: keras.Model, *arguments: tf.Tensor, training: bool = True) -> tf.Tensor:
        traced.append(training)
        return compute_loss(model, *arguments, training=training)

    monkeypatch.setattr(keras.Model, "compute_loss", count)
    # 3 steps an epoch, and a smaller batch at the end of both parts.
    fit(replace(RECIPE, batch_size=len(data.rows(Part.TRAIN)) // 2 - 1), data, tmp_path / "run")
    assert traced == [True, False]


@pytest.mark.usefixtures("short_lite")
def test_averages_and_statistics_of_a_short_stage_are_its_own() -> None:
    for limit, momentum in ((0.0, 0.0), (5 / 6, 5 / 6), (0.999, 0.99)):
        model = build_hybrid(RECIPE, 32)
        limit_momentum(model, limit)
        norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
        assert [norm.momentum for norm in norms] == pytest.approx([momentum] * len(norms))
        assert build_optimizer(RECIPE, model, limit).ema_momentum == pytest.approx(momentum)


def test_the_backbone_moves_by_its_own_rate_and_averages_lag_behind() -> None:
    slow, fast = keras.layers.Dense(1, name="slow"), keras.layers.Dense(1, name="fast")
    model = keras.Sequential([keras.Input((4,)), slow, fast])
    before = [layer.kernel.numpy() for layer in (slow, fast)]
    optimizer = DiscriminativeAdam(
        [slow.kernel.path], 0.1, learning_rate=1e-2, use_ema=True, ema_momentum=0.5
    )
    model.compile(optimizer, "mse")
    x = np.ones((8, 4), np.float32)
    model.train_on_batch(x, np.full((8, 1), 9.0))
    model.train_on_batch(x, np.full((8, 1), 9.0))
    steps = [
        np.abs(layer.kernel.numpy() - start).max()
        for layer, start in zip((slow, fast), before, strict=True)
    ]
    # Adam's steps are of the learning rate's size whatever the gradient.
    assert steps == pytest.approx([2e-3, 2e-2], rel=0.05)
    last = fast.kernel.numpy()
    with averaged(model):
        assert np.abs(fast.kernel.numpy() - last).max() == pytest.approx(5e-3, rel=0.1)
    np.testing.assert_array_equal(fast.kernel.numpy(), last)
