"""Devices and processes that share a run give the numbers of one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.training.shared_run import RECIPE
from training.distribution import choose_strategy
from training.fit import fit
from training.layers import FusedBatchNormalization, SharedDropout
from training.prepare import PreparedData
from training.run_folder import read_history, read_result

MEASURED = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")


@contextmanager
def process(
    data: PreparedData, run: Path, *, devices: int = 1, config: str = "", pause: float = 0
) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, **({"TF_CONFIG": config} if config else {})}
    command = [sys.executable, "-m", "tests.training.shared_run"]
    with subprocess.Popen(
        [*command, str(data.directory), str(run), str(devices), str(pause)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def finish(started: "subprocess.Popen[str]") -> None:
    _, said = started.communicate(timeout=600)
    assert started.returncode == 0, said


def configs(num_workers: int) -> list[str]:
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(num_workers)]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index in range(num_workers)
    ]


def measured(run: Path) -> list[float]:
    return [line[name] for line in read_history(run) for name in MEASURED]


@pytest.fixture(scope="module")
def alone(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """What one process on one device measures of the run."""
    run = tmp_path_factory.mktemp("alone") / "run"
    with process(data, run) as started:
        finish(started)
    found = measured(run)
    assert len(found) == 2 * len(MEASURED)
    return found


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(
    data: PreparedData, alone: list[float], tmp_path: Path
) -> None:
    with process(data, tmp_path / "run", devices=2) as started:
        finish(started)
    assert measured(tmp_path / "run") == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one_although_one_of_them_is_killed(
    data: PreparedData, alone: list[float], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with ExitStack() as stack:
        chief, other = (
            stack.enter_context(process(data, run, config=config, pause=0.5))
            for config in configs(2)
        )
        assert chief.stdout
        while chief.stdout.readline() != "step 2\n":
            assert chief.poll() is None, chief.communicate()[1]
        other.kill()
        chief.communicate(timeout=600)
        assert chief.returncode != 0  # nobody waits for ever
    assert not read_history(run)
    with ExitStack() as stack:
        workers = [stack.enter_context(process(data, run, config=c)) for c in configs(2)]
        for worker in workers:
            finish(worker)
    assert measured(run) == pytest.approx(alone, rel=1e-4)
    assert read_result(run).hardware.startswith("2 x ")
    # The chief alone writes.
    assert len((run / "processes.jsonl").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    "config",
    [
        "worker",
        "[]",
        '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}',
    ],
)
def test_a_cluster_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="TF_CONFIG must be"):
        choose_strategy()


def test_batches_that_cannot_be_shared_are_refused(data: PreparedData, tmp_path: Path) -> None:
    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(ValueError, match="Batches of 8 cannot be shared by 3 devices"):
        fit(replace(RECIPE), data, tmp_path / "run", strategy=Three())
    assert not (tmp_path / "run").exists()


def test_one_device_needs_no_strategy() -> None:
    if len(tf.config.list_physical_devices("GPU")) > 1:
        pytest.skip("several GPUs")
    assert choose_strategy().num_replicas_in_sync == 1


def test_the_kernel_normalises_as_keras_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (4, 3, 5, 6)).astype(np.float32)
    found = []
    for kind in (FusedBatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.5)
        y = layer(x, training=True)
        found.append([y.numpy(), layer.moving_mean.numpy(), layer.moving_variance.numpy()])
        found[-1].append(layer(x, training=False).numpy())
    for own, expected in zip(*found, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_dropout_on_one_device_is_keras_own() -> None:
    x = np.ones((4, 100), np.float32)
    own, expected = (
        kind(0.5, seed=3)(x, training=True) for kind in (SharedDropout, keras.layers.Dropout)
    )
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(SharedDropout(0.5)(x), x)
