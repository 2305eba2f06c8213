"""Wire the service together; nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from app import parts
from app.access.authenticator import Authenticator
from app.access.quota import Quota
from app.api import cds
from app.api.admission import Admission
from app.api.deps import Services
from app.api.errors import install_error_handlers
from app.api.feedback import FEEDBACK_PREFIX, MAX_FEEDBACK_BYTES
from app.api.fhir_answers import FHIR_PREFIX
from app.api.fhir_errors import SpeakFhir
from app.api.guard import Guard, check_requirements
from app.api.limits import MULTIPART_OVERHEAD_BYTES, Admit, LimitBody, LimitTime
from app.api.observation import UNMATCHED, Observe
from app.api.openapi import describe_problems
from app.api.secure_headers import SecureHeaders
from app.domain.notice import RESEARCH_USE_NOTICE
from app.expected_series import expect
from app.inference.fleet import Fleet
from app.inference.models import Engine
from app.inference.process import prepare_process
from app.inference.release import Release
from app.inference.runtimes import engine_maker
from app.metrics import Metrics
from app.routes import make_routers
from app.settings import Settings
from app.stages import Stages
from app.tracing import Tracing

if TYPE_CHECKING:
    from app.trace_export import TraceExport

NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wiring:
    """What is there before the first event loop runs.

    Attributes:
        settings: All of the configuration.
        release: The models that may be served, where they are fixed.
        has_feedback: Whether diagnoses that come back are taken.
        metrics: Where measurements go.
        tracing: Makes spans.
        export: Sends them to a collector, where there is one.
        authenticator: Tells callers apart.
        quota: Of each caller; None for no bound.
        doors: Before what takes long, by path.
        make_engine: Makes what runs an artifact.
    """

    settings: Settings
    release: Release | None
    has_feedback: bool
    metrics: Metrics
    tracing: Tracing
    export: "TraceExport | None"
    authenticator: Authenticator
    quota: Quota | None
    doors: dict[str, Admission]
    make_engine: Callable[[Path], Engine]


def create_app(settings: Settings, release: Release | None = None) -> FastAPI:
    """Make the service.

    Args:
        settings: All of its configuration.
        release: The models that it may serve, where it is one of several replicas that callers
            cannot choose among; there is no `/feedback` then, for the answer may be another's.

    Returns:
        An ASGI application. Its start-up loads and verifies every model and raises
        `app.domain.errors.ArtifactError` where one must not be served.

    Raises:
        AccessConfigurationError: The callers' credentials cannot be read.
        ImportError: The runtime's package is not installed.
        TracingUnavailableError: Traces are to be sent, and the extra `otel` is not installed.
    """
    metrics = Metrics()
    export = parts.open_trace_export(settings, metrics)
    wiring = _Wiring(
        settings=settings,
        release=release,
        has_feedback=settings.audit_dir is not None and release is None,
        metrics=metrics,
        tracing=Tracing() if export is None else export.tracing,
        export=export,
        authenticator=parts.make_authenticator(settings),
        quota=parts.make_quota(settings),
        doors=parts.make_doors(settings),
        make_engine=engine_maker(settings.runtime, settings.model_threads),
    )
    metrics.authentication.set(not wiring.authenticator.is_open)
    app = FastAPI(
        title="DermHybrid",
        summary="Class probabilities and heatmaps for dermatoscopic images.",
        description=f"**{RESEARCH_USE_NOTICE}**",
        version=version("dermhybrid"),
        lifespan=_lifespan(wiring),
        # The interactive pages load scripts from a public host, which a hospital blocks.
        docs_url=None,
        redoc_url=None,
        # FastAPI's own spans and logs hold paths, queries and messages (ADR-0026).
        telemetry=NO_TELEMETRY,
    )
    for router in make_routers(settings, has_feedback=wiring.has_feedback):
        app.include_router(router)
    install_error_handlers(app)
    describe_problems(app)
    _add_middleware(app, wiring)
    return app


def _lifespan(wiring: _Wiring) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What is there while an event loop runs: models, logs, queues."""
    settings = wiring.settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        routes = {route.path for route in check_requirements(app)}
        has_tokens = settings.oauth_issuer is not None
        expect(wiring.metrics, {*routes, UNMATCHED}, has_tokens=has_tokens)
        prepare_process()
        fleet = parts.make_fleet(
            settings, wiring.release, wiring.make_engine, wiring.metrics, wiring.tracing
        )
        await fleet.reload()
        services = _open_services(wiring, fleet)
        app.state.services = services
        wiring.metrics.watch_readiness(services.is_ready)
        async with parts.open_dicom(settings, services) as worker:
            app.state.services = replace(services, dicom=worker)
            tests = asyncio.create_task(
                _test_repeatedly(fleet, settings.self_test_interval_seconds), name="self-tests"
            )
            logger.info("ready", extra=_protections(wiring))
            yield
            tests.cancel()
            services.begin_to_stop()
        await fleet.close(settings.shutdown_grace_seconds)
        for opened in (services.auditor, services.feedback, services.cards, services.fhir_server):
            if opened is not None:
                await opened.close()
        if wiring.export is not None:
            await asyncio.to_thread(wiring.export.close)

    return lifespan


def _protections(wiring: _Wiring) -> dict[str, bool]:
    """Which of the protections that a setting turns on are in force, for the log."""
    return {
        "authentication": not wiring.authenticator.is_open,
        "signatures": wiring.settings.model_public_keys is not None,
        "quota": wiring.quota is not None,
        "audit": wiring.settings.audit_dir is not None,
    }


def _open_services(wiring: _Wiring, fleet: Fleet) -> Services:
    settings, metrics = wiring.settings, wiring.metrics
    auditor, feedback, cards = parts.open_audit(settings, metrics, has_feedback=wiring.has_feedback)
    return Services(
        fleet=fleet,
        metrics=metrics,
        stages=Stages(metrics, wiring.tracing),
        tracing=wiring.tracing,
        image_limits=settings.image_limits(),
        doors=tuple(set(wiring.doors.values())),
        gates=settings.gates(),
        max_overlay_side=settings.max_overlay_side,
        image_threads=anyio.CapacityLimiter(settings.num_image_workers()),
        auditor=auditor,
        feedback=feedback,
        cards=cards,
        fhir_server=parts.open_fhir_store(settings),
        max_batch_images=settings.max_batch_images,
        batch_concurrency=settings.max_batch_size,
        quota=wiring.quota,
        is_open=wiring.authenticator.is_open,
        operations_port=settings.operations_port,
    )


def _add_middleware(app: FastAPI, wiring: _Wiring) -> None:
    """Wrap the routes; what is added last meets a request first."""
    settings = wiring.settings
    app.add_middleware(
        LimitBody,
        max_image_bytes=settings.max_image_bytes,
        max_bytes_by_prefix={
            "/predict/batch": settings.max_batch_bytes,
            "/dicom/studies": settings.max_batch_bytes,
            FEEDBACK_PREFIX: MAX_FEEDBACK_BYTES,
            cds.CDS_PREFIX: cds.MAX_CDS_BYTES,
            # In base64, with white space.
            FHIR_PREFIX: settings.max_image_bytes * 3 // 2 + MULTIPART_OVERHEAD_BYTES,
        },
    )
    app.add_middleware(
        LimitTime,
        default_seconds=settings.request_timeout_seconds,
        max_seconds=settings.max_request_timeout_seconds,
    )
    app.add_middleware(Admit, doors=wiring.doors)
    app.add_middleware(
        Guard,
        authenticator=wiring.authenticator,
        quota=wiring.quota,
        operations_port=settings.operations_port,
        counted=wiring.doors,
    )
    app.add_middleware(Observe, metrics=wiring.metrics, tracing=wiring.tracing)
    app.add_middleware(SpeakFhir)
    app.add_middleware(SecureHeaders, encrypted=settings.tls_certificate is not None)


async def _test_repeatedly(fleet: Fleet, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        await fleet.self_test()
