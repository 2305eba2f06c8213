"""A short run on this process's share of the devices: `python -m tests.training.shared_run`."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from training import efficientnet_lite
from training.cluster import choose_strategy
from training.config import Recipe, Stage
from training.fit import fit
from training.prepare import load_prepared
from training.progress import Progress
from training.recipes.catalog import RECIPES

RECIPE: Recipe = replace(
    RECIPES["lite-efficientnet-lite0"],
    # So few steps have no warm-up; at a rate for long runs AdamW's first steps would make a
    # difference in the last bit a different sign.
    stages=(Stage(32, 2, 3e-5, 3),),
    batch_size=8,
    mixup=0.2,
    backbone_weights="none",
    frozen_layers=0,
)


def main(data: Path, run: Path, num_devices: int, pause: float) -> None:
    """Train on some devices of this process, and on those of all workers that TF_CONFIG names.

    Args:
        data: Prepared data.
        run: The run's folder.
        num_devices: Of this process.
        pause: Seconds after each step.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * num_devices
    tf.config.set_logical_device_configuration(cpu, devices)
    # As in the fixture short_lite.
    vars(efficientnet_lite)["_GROUPS"] = efficientnet_lite._GROUPS[:2]
    if num_devices > 1:
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(num_devices)])
    else:
        strategy = choose_strategy()

    def told(progress: Progress, _steps: int, _loss: float) -> None:
        sys.stdout.write(f"step {progress.total_steps + progress.step}\n")
        sys.stdout.flush()
        time.sleep(pause)

    fit(
        RECIPE,
        load_prepared(data),
        run,
        checkpoint_seconds=0,
        report_step=told,
        strategy=strategy,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
