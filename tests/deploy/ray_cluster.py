"""A small Ray of its own, and applications on it, as an operator would start them."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

START_SECONDS = 600
"""A machine may be slow: Ray starts a dozen processes."""
NUM_ATTEMPTS = 5
"""Ray gives up where one of them takes longer than 15 seconds, which cannot be set."""

_PROGRAMS = Path(sys.prefix) / "bin"
_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_SECONDS),
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(START_SECONDS),
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}


@contextmanager
def ray_cluster(log: Path, port: int, num_cpus: int) -> Iterator[str]:
    """Run a cluster of one machine.

    Args:
        log: File for all that it writes.
        port: Of its control service; the next four are its agents'.
        num_cpus: That its replicas share.

    Yields:
        Its address.
    """
    options = {
        "num-cpus": num_cpus,
        "object-store-memory": 100_000_000,
        "port": port,
        "node-ip-address": "127.0.0.1",  # whoever reaches its ports may run any code
        "include-dashboard": "false",
        # Any free ones, beside another cluster of this machine.
        "min-worker-port": 0,
        "max-worker-port": 0,
        "dashboard-agent-listen-port": port + 1,
        "dashboard-agent-grpc-port": port + 2,
        "runtime-env-agent-port": port + 3,
        "metrics-export-port": port + 4,
    }
    # Its sockets are below the folder, and their paths are to be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # noqa: S108
        options["temp-dir"] = folder
        arguments = [f"--{name}={value}" for name, value in options.items()]
        for _ in range(NUM_ATTEMPTS):
            process = _start([_PROGRAMS / "ray", "start", "--head", "--block", *arguments], log)
            if process.poll() is None:
                break
        else:
            raise AssertionError(log.read_text())
        try:
            address = re.search(r"ray start --address='(\S+)'", log.read_text())
            assert address is not None, log.read_text()
            yield address.group(1)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _start(command: list[str | Path], log: Path) -> "subprocess.Popen[bytes]":
    """A process that says that Ray has started, or has ended."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=_ENVIRONMENT,
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and "--address=" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return process


def deploy(address: str, config: dict[str, Any], scratch: Path) -> None:
    """Have a cluster serve what a Serve config file says; returns before it does.

    Args:
        address: Of the cluster.
        config: Of the file.
        scratch: The file that is written.
    """
    scratch.write_text(yaml.safe_dump(config), encoding="utf-8")
    done = subprocess.run(
        [_PROGRAMS / "serve", "run", "--non-blocking", "--address", address, str(scratch)],
        env=_ENVIRONMENT,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
