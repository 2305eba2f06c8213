"""The service as replicas on a Ray cluster, each of them all of it (ADR-0029).

```
serve deploy deploy/ray/serve.yaml -> build: settings and models, read once
                                       ├── Replica: create_app, its own port for operators
                                       └── Replica: ...
```
"""

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import ray
import uvicorn
from fastapi import FastAPI
from ray import serve

from app.api.cds import MAX_CDS_IN_PROGRESS
from app.api.deps import Services
from app.environment import read_settings
from app.inference.release import Release, read_release
from app.logs import configure_logging
from app.main import create_app
from app.protocol import bounded_protocol
from app.server import SWITCH_SECONDS, check_exposure
from app.settings import Settings

NUM_OPERATIONS_PORTS: Final = 16
"""Replicas that one machine can hold, those included that a new deployment replaces."""

OTHER_REQUESTS: Final = 32
"""Of a replica at once, beside predictions: refusals, health, models, the page."""

CLOSING_SECONDS: Final = 5.0
"""For a replica to write and send what waits, once nobody waits for an answer."""

MIN_DRAIN_SECONDS: Final = 0.1


def build(arguments: dict[str, str]) -> serve.Application:
    """Read settings and models, for all replicas: what Ray Serve's `import_path` names.

    Args:
        arguments: There are none; settings come from the environment (README, "Settings").

    Raises:
        ValueError: A setting cannot hold for several replicas, or there are arguments.
        SettingsRefusedError: The environment has settings that are not taken.
        AccessConfigurationError: Nobody is told apart, and no setting says that this is meant.
        ArtifactError: There are no models.
    """
    if arguments:
        raise ValueError(f"args: expected none, received {sorted(arguments)}; set the environment.")
    settings = read_settings()
    check_replicable(settings)
    check_exposure(settings, "0.0.0.0")  # noqa: S104  a cluster is a network
    doors = settings.max_predictions_in_progress + settings.max_batches_in_progress
    if settings.cds_hooks:
        doors += MAX_CDS_IN_PROGRESS
    deployment = serve.deployment(Replica).options(
        name="dermhybrid",
        # More than fit: whom a replica refuses is told by our problem, with Retry-After (ADR-0008).
        max_ongoing_requests=doors + OTHER_REQUESTS,
        max_queued_requests=doors,
        # Ray stops sending first; then a replica goes on for so long, and until it is empty.
        graceful_shutdown_wait_loop_s=max(settings.drain_seconds, MIN_DRAIN_SECONDS),
        graceful_shutdown_timeout_s=settings.drain_seconds
        + settings.shutdown_grace_seconds
        + CLOSING_SECONDS,
        logging_config={"enable_access_log": False},  # it has paths, which ours have not
    )
    return deployment.bind(settings, read_release(settings.models_dir))


def check_replicable(settings: Settings) -> None:
    """Refuse settings that would mean something else for several replicas, or nothing.

    Raises:
        ValueError: The message names each of them, and what to do in its place.
    """
    wrong = []
    if settings.operations_port is None:
        wrong.append(
            "OPERATIONS_PORT is not set: /metrics of any one replica says nothing of the others. "
            f"Set the first of {NUM_OPERATIONS_PORTS} ports; a machine's replicas take one each"
        )
    if settings.quota_per_minute is not None:
        wrong.append(
            "QUOTA_PER_MINUTE is counted by each replica for itself. Bound callers in the proxy "
            "before Ray Serve"
        )
    if settings.dicom_queue_dir is not None:
        wrong.append(
            "DICOM_QUEUE_DIR belongs to one process. Run the DICOM worker as a service of its own"
        )
    if settings.tls_certificate is not None:
        wrong.append(
            "TLS_CERTIFICATE has no effect, for Ray Serve listens. Set ssl_certfile and "
            "ssl_keyfile in its http_options"
        )
    if wrong:
        raise ValueError("Not with replicas on Ray Serve: " + "; ".join(wrong) + ".")


@serve.ingress()
class Replica:
    """One process that answers; Ray Serve starts, asks, drains and ends it."""

    def __init__(self, settings: Settings, release: Release) -> None:
        """Take a port and a folder of its own; models are loaded by the application's start-up.

        Args:
            settings: As `build` read them, the same for all.
            release: What is served, the same for all.

        Raises:
            OSError: No port is left for operators.
        """
        configure_logging(settings.log_level)
        sys.setswitchinterval(SWITCH_SECONDS)
        context = ray.get_runtime_context()
        first_port = settings.operations_port
        assert first_port is not None  # noqa: S101  `build` sees to it
        listening = _listen(ray.util.get_node_ip_address(), first_port)
        changes: dict[str, Any] = {"operations_port": listening.getsockname()[1]}
        if settings.audit_dir is not None:
            changes["audit_dir"] = settings.audit_dir / serve.get_replica_context().replica_tag
        if settings.model_threads is None:
            cpus = context.get_assigned_resources().get("CPU", 1.0)
            changes["model_threads"] = max(1, int(cpus))
        own = settings.model_copy(update=changes)
        self._service = create_app(own, release)
        self._operators = _Operators(self._service, listening, own.client_timeout_seconds)

    def __serve_build_asgi_app__(self) -> FastAPI:  # noqa: PLW3201  Ray Serve's name for it
        """What answers."""
        return self._service

    async def check_health(self) -> None:
        """As `/health/ready`; Ray Serve replaces a replica that fails this several times.

        Raises:
            ServiceStoppingError: It begins no prediction any more.
            ModelFaultError: A model failed its last self-test.
            RuntimeError: Operators are not answered any more.
        """
        self._operators.check()
        services: Services = self._service.state.services
        services.check_ready()


def _listen(host: str, first_port: int) -> socket.socket:
    """A socket at the first port that no other replica of this machine has taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first_port, first_port + NUM_OPERATIONS_PORTS):
        try:
            return socket.create_server((host, port), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(
        errno.EADDRINUSE,
        f"OPERATIONS_PORT: the {NUM_OPERATIONS_PORTS} ports from {first_port} on are all taken.",
    )


class _OperatorsServer(uvicorn.Server):
    """uvicorn that leaves the process's signals to Ray."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Operators:
    """An application answers on a second socket too, while it runs."""

    def __init__(self, app: FastAPI, listening: socket.socket, client_seconds: float) -> None:
        """Begin with the application's start-up, end with it."""
        self._listening = listening
        self._server = _OperatorsServer(
            uvicorn.Config(
                app,
                lifespan="off",  # Ray Serve runs it
                log_config=None,
                access_log=False,
                server_header=False,
                http=bounded_protocol(client_seconds),
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._started = app.router.lifespan_context
        app.router.lifespan_context = self._lifespan

    def check(self) -> None:
        """Say whether it still answers.

        Raises:
            RuntimeError: It has ended.
        """
        if self._serving is None or self._serving.done():
            raise RuntimeError("The replica's port for operators is closed.")

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[Any]:
        async with self._started(app) as state:
            self._serving = asyncio.create_task(
                self._server.serve([self._listening]), name="operators"
            )
            try:
                yield state
            finally:
                self._server.should_exit = True
                await asyncio.wait([self._serving])
