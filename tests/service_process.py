"""The service as a process of its own, told to stop as an operator would, or killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import REPOSITORY


@contextmanager
def service_process(
    log: Path, settings: dict[str, str], stop_seconds: float | None = None, port: int = 0
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Run the service on this machine.

    Args:
        log: File for all that it writes.
        settings: Its environment, beside this process's.
        stop_seconds: It has ended so long after SIGTERM, or the test fails; None: it is killed.
        port: 0 for any that is free.

    Yields:
        The process, and the address that it answers at: `http://127.0.0.1:PORT`, or `https://`.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from app.cli import main; main()",
                "serve",
                "--port",
                str(port),
            ],
            env={**os.environ, **settings},
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = None
            while address is None:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
                address = re.search(r"https?://127\.0\.0\.1:\d+", log.read_text())
            yield process, address.group()
        finally:
            process.send_signal(signal.SIGKILL if stop_seconds is None else signal.SIGTERM)
            process.wait(timeout=stop_seconds)


@contextmanager
def openvino_service(
    models: Path, log: Path, **settings: str
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The same with models, on OpenVINO; killed in the end."""
    own = {"MODELS_DIR": str(models), "RUNTIME": "openvino"}
    with service_process(log, {**own, **settings}) as running:
        yield running
