"""Training: several devices as far as a CPU can show them, rates, averages, resumption."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import REPOSITORY
from training.config import Stage
from training.fit import DiscriminativeAdam, averaged, choose_strategy, fit
from training.prepare import PreparedData
from training.progress import Progress
from training.recipes.catalog import RECIPES
from training.run_folder import read_history

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import tensorflow as tf

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from training import efficientnet_lite
from training.config import Protocol, Stage
from training.fit import fit
from training.prepare import load_prepared, prepare
from training.recipes.catalog import RECIPES

efficientnet_lite._GROUPS = efficientnet_lite._GROUPS[:2]  # as in the fixture short_lite
root = Path(sys.argv[1])
data = prepare([root], root / "HAM10000_metadata.csv", Path(sys.argv[2]) / "data",
               Protocol.LESION, 1, lambda done, total: None)
recipe = replace(RECIPES["lite-efficientnet-lite0"], stages=(Stage(32, 1, 1e-3, 2),), batch_size=8,
                 backbone_weights="none", frozen_layers=0)
strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
result = fit(recipe, data, Path(sys.argv[2]) / "run", strategy=strategy)
assert strategy.num_replicas_in_sync == 2
print("steps", result.steps)
"""


@pytest.mark.slow
def test_two_replicas_train_in_step(synthetic_dataset: tuple[Path, Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(synthetic_dataset[0]), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "steps 2" in done.stdout, done.stderr
    assert (tmp_path / "run" / "best-0.weights.h5").exists()


def test_one_device_needs_no_strategy() -> None:
    if len(tf.config.list_physical_devices("GPU")) > 1:
        pytest.skip("several GPUs")
    assert choose_strategy().num_replicas_in_sync == 1


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
def test_averages_schedule_and_rates_survive_an_interruption(
    data: PreparedData, tmp_path: Path
) -> None:
    fit(RECIPE, data, tmp_path / "whole")

    def die(progress: Progress, _steps: int, _loss: float) -> None:
        if (progress.epoch, progress.step) == (1, 2):
            raise KilledError

    with pytest.raises(KilledError):
        fit(RECIPE, data, tmp_path / "cut", checkpoint_seconds=0, report_step=die)
    fit(RECIPE, data, tmp_path / "cut")
    whole, cut = (
        [line["validation_loss"] for line in read_history(tmp_path / name)]
        for name in ("whole", "cut")
    )
    assert len(whole) == 2
    assert cut == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_the_graph_of_a_step_is_made_once(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []
    train_step = keras.Model.train_step

    def count(model: keras.Model, batch: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        traced.append(model.name)
        return train_step(model, batch)

    monkeypatch.setattr(keras.Model, "train_step", count)
    fit(replace(RECIPE, stages=(Stage(32, 1, 1e-2, 2),)), data, tmp_path / "run")
    assert traced == [RECIPE.name]


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
    with averaged(model, None):
        assert np.abs(fast.kernel.numpy() - last).max() == pytest.approx(5e-3, rel=0.1)
    np.testing.assert_array_equal(fast.kernel.numpy(), last)
