"""The drill of docs/operations.md: a new version comes and goes again, and nobody notices."""

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import PLAIN_MODEL, REPOSITORY
from tests.service_process import service_process
from tests.tiny_artifact import write_tiny_artifact

STOP_SECONDS = 60
WAIT_SECONDS = 120


class Caller(threading.Thread):
    """Asks one picture after another, of the service or the one that took its place."""

    def __init__(self, address: str, picture: bytes) -> None:
        super().__init__()
        self.address = address
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.done = threading.Event()
        self._picture = picture

    def run(self) -> None:
        while not self.done.is_set():
            try:
                files = {"image": self._picture}
                answer = httpx2.post(f"{self.address}/predict", files=files, timeout=60)
            except httpx2.TransportError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200:
                self.answers.append(answer.json())
            else:
                self.failures.append(answer.text)

    def move_to(self, address: str) -> None:
        """Returns when nothing more goes to the address before."""
        self.address = address
        # One answer may be of a request that had begun, the next is not.
        enough = len(self.answers) + 2
        while len(self.answers) < enough and not self.failures:
            time.sleep(0.05)

    def newest_version(self) -> int | None:
        return int(self.answers[-1]["model"]["version"]) if self.answers else None


@contextmanager
def calling(address: str, picture: bytes) -> Iterator[Caller]:
    caller = Caller(address, picture)
    caller.start()
    try:
        yield caller
    finally:
        caller.done.set()
        caller.join()


def wait_until(condition: Callable[[], bool], log: Path) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < WAIT_SECONDS, log.read_text()
        time.sleep(0.05)


def verify(records: Path) -> int:
    """The number of the newest record of a log that is whole."""
    command = [sys.executable, "-c", "from app.cli import main; main()", "audit", "verify"]
    done = subprocess.run(
        [*command, str(records)], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    (newest,) = re.findall(r"answers: intact up to record (\d+)", done.stdout)
    return int(newest)


def recorded_versions(records: Path) -> list[int]:
    lines = itertools.chain.from_iterable(
        file.read_text().splitlines() for file in sorted(records.glob("*.jsonl"))
    )
    return [json.loads(line)["model"]["version"] for line in lines]


def test_a_model_comes_into_service_and_is_taken_back_under_load(
    own_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    log, records = tmp_path / "log", tmp_path / "records"
    records.mkdir()
    settings = {
        "MODELS_DIR": str(own_models),
        "DEFAULT_MODEL": PLAIN_MODEL,
        "RUNTIME": "openvino",
        "AUDIT_DIR": str(records),
    }
    folder = own_models / PLAIN_MODEL
    with (
        service_process(log, settings, STOP_SECONDS) as (process, address),
        calling(address, lesion_png) as caller,
    ):
        wait_until(lambda: caller.newest_version() == 2, log)
        write_tiny_artifact(tmp_path / "new", PLAIN_MODEL, version=3, seed=9)
        (tmp_path / "new" / PLAIN_MODEL / "3").rename(folder / "3")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: caller.newest_version() == 3, log)
        (folder / "3").rename(tmp_path / "taken-back")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: caller.newest_version() == 2, log)
        caller.done.set()
        caller.join()
    assert process.returncode == 0
    assert caller.failures == []
    versions = [answer["model"]["version"] for answer in caller.answers]
    assert [version for version, _ in itertools.groupby(versions)] == [2, 3, 2]
    assert verify(records) == len(versions)
    assert recorded_versions(records) == versions


def test_a_new_service_takes_over_from_the_old_one_and_gives_back(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    def settings(records: Path) -> dict[str, str]:
        records.mkdir(exist_ok=True)
        return {"MODELS_DIR": str(tiny_models), "RUNTIME": "openvino", "AUDIT_DIR": str(records)}

    def served(address: str) -> Any:
        return httpx2.get(f"{address}/models").json()

    old, new = tmp_path / "records-old", tmp_path / "records-new"
    logs = [tmp_path / f"log-{number}" for number in range(3)]
    with (
        service_process(logs[0], settings(old), STOP_SECONDS) as (first, old_address),
        calling(old_address, lesion_png) as caller,
    ):
        wait_until(lambda: len(caller.answers) > 3, logs[0])
        with service_process(logs[1], settings(new), STOP_SECONDS) as (second, new_address):
            assert served(new_address) == served(old_address)
            caller.move_to(new_address)
            before = len(caller.answers)
            first.send_signal(signal.SIGTERM)
            assert first.wait(STOP_SECONDS) == 0
            wait_until(lambda: len(caller.answers) > before + 3, logs[1])
            # The old one again, on the records that it left.
            with service_process(logs[2], settings(old), STOP_SECONDS) as (third, address):
                caller.move_to(address)
                before = len(caller.answers)
                second.send_signal(signal.SIGTERM)
                assert second.wait(STOP_SECONDS) == 0
                wait_until(lambda: len(caller.answers) > before + 3, logs[2])
                caller.done.set()
                caller.join()
            assert third.returncode == 0
    assert caller.failures == []
    assert verify(old) + verify(new) == len(caller.answers)


def test_two_services_do_not_share_a_folder_of_records(tiny_models: Path, tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    settings = {"MODELS_DIR": str(tiny_models), "RUNTIME": "openvino", "AUDIT_DIR": str(records)}
    with service_process(tmp_path / "log", settings, STOP_SECONDS):
        second = service_process(tmp_path / "second", settings, STOP_SECONDS)
        with pytest.raises(AssertionError, match="another process writes"), second:
            pass
