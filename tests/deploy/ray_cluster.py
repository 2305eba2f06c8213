"""A small Ray of its own, and applications on it, as an operator would start them."""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

START_SECONDS = 600
"""A machine may be slow: Ray starts a dozen processes."""
NUM_ATTEMPTS = 5
"""Ray gives up where one of them takes longer than 15 seconds, which cannot be set."""

_PROGRAMS = Path(sys.prefix) / "bin"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster of one machine.

    Attributes:
        host: Its machine's address.
        dashboard: URL that `serve deploy` takes.
        environment: For a program that is to reach it, its token included.
    """

    host: str
    dashboard: str
    environment: dict[str, str]

    def deploy(self, config: dict[str, Any], scratch: Path) -> None:
        """Have the cluster serve what a Serve config file says; returns before it does.

        Args:
            config: Of the file.
            scratch: The file that is written.
        """
        scratch.write_text(yaml.safe_dump(config), encoding="utf-8")
        done = subprocess.run(
            [_PROGRAMS / "serve", "deploy", "--address", self.dashboard, str(scratch)],
            env=self.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def ray_cluster(log: Path, port: int, num_cpus: int) -> Iterator[Cluster]:
    """Run a cluster of one machine.

    Args:
        log: File for all that it writes.
        port: Of its control service; the next five are its dashboard's and its agents'.
        num_cpus: That its replicas share.
    """
    # Its sockets are below the folder, and their paths are to be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # noqa: S108
        token = Path(folder) / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Below `uv run`, each of Ray's workers would be another `uv run`.
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            # It listens at the machine's address, and whoever reaches it may run any code.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_SECONDS),
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(START_SECONDS),
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        }
        options = {
            "num-cpus": num_cpus,
            "object-store-memory": 100_000_000,
            "temp-dir": folder,
            "port": port,
            # Any free ones, beside another cluster of this machine.
            "min-worker-port": 0,
            "max-worker-port": 0,
            "dashboard-agent-listen-port": port + 1,
            "dashboard-agent-grpc-port": port + 2,
            "runtime-env-agent-port": port + 3,
            "metrics-export-port": port + 4,
            "dashboard-port": port + 5,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command: list[str | Path] = [_PROGRAMS / "ray", "start", "--head", "--block", *arguments]
        for _ in range(NUM_ATTEMPTS):
            process = _start(command, log, environment)
            if process.poll() is None:
                break
        else:
            raise AssertionError(log.read_text())
        try:
            found = re.search(r"ray start --address='(\S+):\d+'", log.read_text())
            assert found is not None, log.read_text()
            yield Cluster(found.group(1), f"http://127.0.0.1:{port + 5}", environment)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _start(
    command: list[str | Path], log: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """A process that says that Ray has started, or has ended."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and "--address=" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return process
