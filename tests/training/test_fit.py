"""Training over several devices, as far as a CPU can show it."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.conftest import REPOSITORY
from training.fit import choose_strategy

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import tensorflow as tf

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from training.config import Protocol, Stage
from training.fit import fit
from training.prepare import load_prepared, prepare
from training.recipes.catalog import RECIPES
from training.config import Precision

root = Path(sys.argv[1])
data = prepare([root], root / "HAM10000_metadata.csv", Path(sys.argv[2]) / "data",
               Protocol.LESION, 1, lambda done, total: None)
recipe = replace(RECIPES["scratch-densenet121"], stages=(Stage(32, 1, 1e-3, 2),), batch_size=8,
                 precision=Precision.FLOAT32)
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
