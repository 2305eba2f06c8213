"""Start servers as processes of their own, the service and its peers, and look at them."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil

REPOSITORY: Final = Path(__file__).resolve().parents[2]
ENVIRONMENTS: Final = REPOSITORY / "runs" / "bench-peers"
"""A virtual environment for each peer: their requirements exclude each other."""

START_SECONDS: Final = 120.0
PROBE_SECONDS: Final = 15.0
"""Of one request at the start: some servers accept what no worker is there to answer yet."""

STOP_SECONDS: Final = 60.0
_UV: Final = REPOSITORY / ".tools" / "bin" / "uv"
_SHARED_PACKAGES: Final = (
    "anyio",
    "cryptography",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "threadpoolctl",
    "pydantic",
    "python-multipart",
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that a server answers with a prediction.

    Attributes:
        path: Of the URL, with its query.
        body: A JPEG file, in the form that the server takes.
        content_type: Of that form.
    """

    path: str
    body: bytes
    content_type: str


READY: Final = Call("/health/ready", b"", "")
"""What the service is asked where no prediction is."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server.

    Attributes:
        module: In `tests.bench.peers`.
        packages: Installed into an environment of its own; empty for the project's.
        call: Makes a request of a JPEG file.
    """

    module: str
    packages: tuple[str, ...]
    call: Callable[[bytes], Call]


def raw_call(jpeg: bytes, path: str = "/predict") -> Call:
    """The file is the body."""
    return Call(path, jpeg, "image/jpeg")


def _form_call(jpeg: bytes) -> Call:
    boundary = b"bench-7d1f0a"
    head = (
        b'Content-Disposition: form-data; name="image"; filename="lesion.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n"
    )
    body = b"--%b\r\n%b%b\r\n--%b--\r\n" % (boundary, head, jpeg, boundary)
    return Call("/predict", body, f"multipart/form-data; boundary={boundary.decode()}")


def _mosec_call(jpeg: bytes) -> Call:
    return raw_call(jpeg, "/inference")


def _v2_call(jpeg: bytes) -> Call:
    data = [base64.b64encode(jpeg).decode("ascii")]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    body = json.dumps({"inputs": [tensor]}).encode()
    return Call("/v2/models/peer/infer", body, "application/json")


PEERS: Final[Mapping[str, Peer]] = {
    "FastAPI, async def": Peer("async_def", (), raw_call),
    "LitServe 0.2.19": Peer("litserve_peer", ("litserve==0.2.19",), _form_call),
    "mosec 0.9.8": Peer("mosec_peer", ("mosec==0.9.8",), _mosec_call),
    "BentoML 1.4.39": Peer("bentoml_peer", ("bentoml==1.4.39",), _form_call),
    "MLServer 1.7.1": Peer("mlserver_peer", ("mlserver==1.7.1",), _v2_call),
    "Ray Serve 2.60.0": Peer("ray_peer", ("ray[serve]==2.60.0",), raw_call),
}


class ServerError(Exception):
    """A server that did not start; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        port: On 127.0.0.1.
        process: Its first process.
        start_seconds: From the command to the first answer.
    """

    port: int
    process: psutil.Process
    start_seconds: float

    def resident_mb(self) -> float:
        """Memory of the process and all its children."""
        processes = [self.process, *self.process.children(recursive=True)]
        return float(sum(process.memory_info().rss for process in processes)) / 1e6

    def stop(self) -> int:
        """Send SIGTERM and wait; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return int(self.process.wait(STOP_SECONDS) or 0)


@contextmanager
def serve_project(port: int, log: Path, **settings: Any) -> Iterator[Server]:
    """The service itself; settings by the names of `app.settings`."""
    # The picture is drawn: rejected, it would get no heatmap, and less work would be measured.
    settings.setdefault("out_of_distribution_gate", "advise")
    environment = {name.upper(): str(value) for name, value in settings.items()}
    command = [str(Path(sys.executable).with_name("dermhybrid")), "serve", "--port", str(port)]
    with _run(command, port, log, environment, READY) as server:
        yield server


@contextmanager
def serve_peer(peer: Peer, port: int, log: Path, artifact: Path, jpeg: bytes) -> Iterator[Server]:
    """A peer with an artifact."""
    environment = {
        "BENCH_MODEL": str(artifact.resolve()),
        "BENCH_PORT": str(port),
        "PYTHONPATH": str(REPOSITORY),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # its workers are not to be `uv run` of this project
        "MOSEC_PORT": str(port),
        "MOSEC_TIMEOUT": "60000",
    }
    command = [str(_python_of(peer)), "-m", f"tests.bench.peers.{peer.module}"]
    with _run(command, port, log, environment, peer.call(jpeg)) as server:
        yield server


def _python_of(peer: Peer) -> Path:
    """Its interpreter; the environment is made where it is missing, or of other packages."""
    if not peer.packages:
        return Path(sys.executable)
    folder = ENVIRONMENTS / peer.module
    python, complete = folder / "bin" / "python", folder / "complete"
    uv = str(_UV)
    pins = subprocess.run(
        [uv, "export", "--frozen", "--no-hashes", "--no-emit-project", "--extra", "openvino"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    shared = [line for line in pins if line.split("==")[0] in _SHARED_PACKAGES]
    packages = [*(line.split(";")[0].strip() for line in shared), *peer.packages]
    if not complete.exists() or complete.read_text().splitlines() != packages:
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True
        )
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
        complete.write_text("\n".join(packages))
    return python


@contextmanager
def _run(
    command: list[str], port: int, log: Path, environment: Mapping[str, str], probe: Call
) -> Iterator[Server]:
    """Run a server until the block ends; all its processes are gone after it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = psutil.Process(child.pid)
    try:
        _await_answer(child, port, log, probe)
        yield Server(port, process, time.monotonic() - started)
    finally:
        family = [process, *process.children(recursive=True)] if child.poll() is None else []
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for relative in family:
            if relative.is_running():
                relative.kill()


def _await_answer(child: "subprocess.Popen[bytes]", port: int, log: Path, probe: Call) -> None:
    give_up = time.monotonic() + START_SECONDS
    headers = {"Content-Type": probe.content_type} if probe.body else {}
    request = Request(f"http://127.0.0.1:{port}{probe.path}", probe.body or None, headers)
    refused: Exception | None = None
    while time.monotonic() < give_up and child.poll() is None:
        try:
            with urlopen(request, timeout=PROBE_SECONDS):
                return
        except (URLError, ConnectionError, TimeoutError) as error:
            refused = error
            time.sleep(0.02)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise ServerError(f"No answer from {child.args!r} (exit {child.poll()}): {refused}\n{tail}")
