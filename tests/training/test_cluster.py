"""Devices and processes that share a run give the numbers of one, or none."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.training.shared_run import RECIPE
from training import progress
from training.cli import app
from training.cluster import choose_strategy
from training.fit import fit
from training.prepare import PreparedData
from training.run_folder import (
    claim,
    read_history,
    read_processes,
    read_result,
    read_state,
    write_state,
)

MEASURED = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")
SECONDS = 600
"""For whatever a process does; a machine may be slow."""


class Process:
    """`tests.training.shared_run`, and what it wrote."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log

    def steps(self) -> list[int]:
        """The steps of the run that it has made."""
        return [int(n) for n in re.findall(r"^step (\d+)$", self.log.read_text(), re.MULTILINE)]

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + SECONDS
        while step not in self.steps():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def finish(self) -> int:
        """Its exit status."""
        return self.process.wait(SECONDS)

    def succeed(self) -> None:
        assert self.finish() == 0, self.log.read_text()


@contextmanager
def start(
    data: PreparedData,
    run: Path,
    log: Path,
    *,
    devices: int = 1,
    pause: float = 0,
    environment: dict[str, str] | None = None,
) -> Iterator[Process]:
    command = [sys.executable, "-m", "tests.training.shared_run"]
    command += [str(data.directory), str(run), str(devices), str(pause)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Process(process, log)
    finally:
        process.kill()
        process.wait()


def configs() -> list[str]:
    """Of two workers."""
    first = second = free_port()
    while second == first:
        second = free_port()
    cluster = {"worker": [f"127.0.0.1:{port}" for port in (first, second)]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]


@contextmanager
def two_workers(
    data: PreparedData,
    runs: tuple[Path, Path],
    logs: Path,
    *,
    pause: float = 0,
    of_the_second: dict[str, str] | None = None,
) -> Iterator[list[Process]]:
    logs.mkdir()
    own: list[dict[str, str]] = [{}, of_the_second or {}]
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                start(
                    data,
                    run,
                    logs / f"{number}.log",
                    pause=pause,
                    environment={"TF_CONFIG": config, **more},
                )
            )
            for number, (run, config, more) in enumerate(zip(runs, configs(), own, strict=True))
        ]


def measured(run: Path) -> list[float]:
    return [line[name] for line in read_history(run) for name in MEASURED]


@pytest.fixture(scope="module")
def alone(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """What one process on one device measures of the run."""
    folder = tmp_path_factory.mktemp("alone")
    with start(data, folder / "run", folder / "log") as process:
        process.succeed()
    found = measured(folder / "run")
    assert len(found) == 2 * len(MEASURED)
    return found


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(
    data: PreparedData, alone: list[float], tmp_path: Path
) -> None:
    with start(data, tmp_path / "run", tmp_path / "log", devices=2) as process:
        process.succeed()
    assert measured(tmp_path / "run") == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one_although_one_of_them_is_killed(
    data: PreparedData, alone: list[float], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with two_workers(data, (run, run), tmp_path / "cut", pause=0.5) as (chief, other):
        chief.wait_for_step(2)
        other.process.kill()
        assert chief.finish() != 0  # nobody waits for ever
        assert "Another process of TF_CONFIG has ended" in chief.log.read_text()
    state = read_state(run)
    assert state is not None
    reached = state[1].step
    assert reached in (1, 2, 3)
    assert not read_history(run)
    with two_workers(data, (run, run), tmp_path / "resumed") as workers:
        for worker in workers:
            worker.succeed()
        assert [worker.steps()[0] for worker in workers] == [reached + 1] * 2
    assert measured(run) == pytest.approx(alone, rel=1e-4)
    assert read_result(run).hardware.startswith("2 processes, the first with ")
    assert len(read_processes(run)) == 2  # the chief alone writes


def no_folder(_run: Path, _other: Path, _data: PreparedData) -> dict[str, str]:
    return {}


def another_state(_run: Path, other: Path, data: PreparedData) -> dict[str, str]:
    claim(other, RECIPE, data)
    (other / "state-0-1").mkdir()
    write_state(other, "state-0-1", replace(progress.start(RECIPE), step=1))
    return {}


def another_commit(run: Path, other: Path, _data: PreparedData) -> dict[str, str]:
    other.symlink_to(run)
    elsewhere = run.parent / "elsewhere"
    git = ["git", "-C", str(elsewhere), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "--quiet", str(elsewhere)], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "a"], check=True)
    return {"GIT_DIR": str(elsewhere / ".git")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (no_folder, "is no run folder"),
        (another_state, "sees another state of"),
        (another_commit, "runs other code than this one"),
    ],
)
def test_what_the_processes_do_not_share_is_noticed(
    prepare: Callable[[Path, Path, PreparedData], dict[str, str]],
    words: str,
    data: PreparedData,
    tmp_path: Path,
) -> None:
    runs = (tmp_path / "here", tmp_path / "there")
    more = prepare(*runs, data)
    with two_workers(data, runs, tmp_path / "logs", of_the_second=more) as (chief, other):
        assert other.finish() != 0
        assert words in other.log.read_text()
        assert chief.finish() != 0
    assert not read_history(runs[0])


@pytest.mark.parametrize(
    "config",
    [
        "worker",
        "[]",
        "[" * 100_000,
        '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [""]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:0"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:70000"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": false}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e400}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_cluster_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="TF_CONFIG must be"):
        choose_strategy()


def test_ablations_are_not_shared(
    monkeypatch: pytest.MonkeyPatch, data: PreparedData, tmp_path: Path
) -> None:
    monkeypatch.setenv("TF_CONFIG", configs()[0])
    command = [
        "ablate",
        "paper-densenet121",
        "--data",
        str(data.directory),
        "--runs",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "unset TF_CONFIG" in done.output


def test_batches_that_cannot_be_shared_are_refused(data: PreparedData, tmp_path: Path) -> None:
    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(ValueError, match="Batches of 8 cannot be shared by 3 devices"):
        fit(RECIPE, data, tmp_path / "run", strategy=Three())
    assert not (tmp_path / "run").exists()


def test_one_device_needs_no_strategy() -> None:
    if len(tf.config.list_physical_devices("GPU")) > 1:
        pytest.skip("several GPUs")
    assert choose_strategy().num_replicas_in_sync == 1
