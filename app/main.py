"""Wire the service together; nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig

from app.access.authenticator import Authenticator
from app.access.quota import Quota
from app.access.tokens import TokenVerifier
from app.api import admin, batch, cds, fhir, models, operations, predict, smart, viewer
from app.api import feedback as feedback_routes
from app.api.admission import Admission
from app.api.auditor import Auditor
from app.api.card_records import CardRecorder
from app.api.deps import Services
from app.api.errors import install_error_handlers
from app.api.feedback import FEEDBACK_PREFIX, MAX_FEEDBACK_BYTES, Feedback
from app.api.fhir_answers import FHIR_PREFIX
from app.api.fhir_errors import SpeakFhir
from app.api.guard import Guard, check_requirements
from app.api.limits import MULTIPART_OVERHEAD_BYTES, Admit, LimitBody, LimitTime
from app.api.observation import Observe
from app.api.openapi import describe_problems
from app.api.secure_headers import SecureHeaders
from app.audit import CARDS_FOLDER, AuditLog, AuditQueue
from app.domain.errors import DicomSupportMissingError, TracingUnavailableError
from app.domain.notice import RESEARCH_USE_NOTICE
from app.feedback import FEEDBACK_FOLDER
from app.inference.batcher import BatchLimits
from app.inference.fleet import Fleet
from app.inference.models import Engine, LoadedModel
from app.inference.process import prepare_process
from app.inference.registry import ModelRegistry, load_registry
from app.inference.release import Release, loaded_release, read_release, require_release
from app.inference.runtimes import engine_maker
from app.interop.fhir_access import TokenAccess, open_fhir_server
from app.interop.fhir_conformance import OPERATION_PATH
from app.metrics import Metrics
from app.settings import Settings
from app.stages import Stages
from app.tracing import Tracing

if TYPE_CHECKING:
    from app.api.dicom_worker import DicomWorker
    from app.interop.fhir_server import FhirServer
    from app.trace_export import TraceExport

NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}

logger = logging.getLogger(__name__)


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
        TracingUnavailableError: Traces are to be sent, and the extra `otel` is not installed.
    """
    metrics = Metrics()
    export = _open_trace_export(settings, metrics)
    tracing = Tracing() if export is None else export.tracing
    authenticator = _make_authenticator(settings)
    metrics.authentication.set(not authenticator.is_open)
    limits = BatchLimits(
        max_items=settings.max_batch_size,
        max_wait_seconds=settings.max_batch_wait_seconds,
        max_waiting=settings.max_predictions_in_progress
        + settings.max_batches_in_progress * settings.max_batch_size,
    )
    predictions = Admission(settings.max_predictions_in_progress)
    doors = {
        "/predict": predictions,
        OPERATION_PATH: predictions,
        "/predict/batch": Admission(settings.max_batches_in_progress),
        cds.CDS_PATH: Admission(cds.MAX_CDS_IN_PROGRESS),
    }
    quota = None
    if settings.quota_per_minute is not None:
        quota = Quota(settings.quota_per_minute, settings.quota_burst)
    if settings.dicom_queue_dir is not None:
        doors["/dicom/studies"] = Admission(settings.max_batches_in_progress)
    make_engine = engine_maker(settings.runtime, settings.model_threads)
    load = partial(_load, settings, release, make_engine)
    has_feedback = settings.audit_dir is not None and release is None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        check_requirements(app)
        prepare_process()
        fleet = Fleet(load, limits, metrics, tracing)
        await fleet.reload()
        auditor, feedback, cards = _open_audit(settings, metrics, has_feedback=has_feedback)
        fhir_server = _open_fhir_server(settings)
        app.state.services = Services(
            fleet=fleet,
            metrics=metrics,
            stages=Stages(metrics, tracing),
            tracing=tracing,
            image_limits=settings.image_limits(),
            doors=tuple(set(doors.values())),
            gates=settings.gates(),
            max_overlay_side=settings.max_overlay_side,
            image_threads=anyio.CapacityLimiter(settings.num_image_workers()),
            auditor=auditor,
            feedback=feedback,
            cards=cards,
            fhir_server=fhir_server,
            max_batch_images=settings.max_batch_images,
            batch_concurrency=settings.max_batch_size,
            quota=quota,
            is_open=authenticator.is_open,
            operations_port=settings.operations_port,
        )
        async with _dicom(settings, app.state.services) as worker:
            app.state.services = replace(app.state.services, dicom=worker)
            tests = asyncio.create_task(
                _test_repeatedly(fleet, settings.self_test_interval_seconds), name="self-tests"
            )
            logger.info("ready")
            yield
            tests.cancel()
            app.state.services.begin_to_stop()
        await fleet.close(settings.shutdown_grace_seconds)
        for opened in (auditor, feedback, cards, fhir_server):
            if opened is not None:
                await opened.close()
        if export is not None:
            await asyncio.to_thread(export.close)

    app = FastAPI(
        title="DermHybrid",
        summary="Class probabilities and heatmaps for dermatoscopic images.",
        description=f"**{RESEARCH_USE_NOTICE}**",
        version=version("dermhybrid"),
        lifespan=lifespan,
        # The interactive pages load scripts from a public host, which a hospital blocks.
        docs_url=None,
        redoc_url=None,
        # FastAPI's own spans and logs hold paths, queries and messages (ADR-0026).
        telemetry=NO_TELEMETRY,
    )
    for router in _routers(settings, has_feedback=has_feedback):
        app.include_router(router)
    install_error_handlers(app)
    describe_problems(app)
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
    app.add_middleware(Admit, doors=doors)
    app.add_middleware(
        Guard,
        authenticator=authenticator,
        quota=quota,
        operations_port=settings.operations_port,
    )
    app.add_middleware(Observe, metrics=metrics, tracing=tracing)
    app.add_middleware(SpeakFhir)
    app.add_middleware(SecureHeaders, encrypted=settings.tls_certificate is not None)
    return app


def _load(
    settings: Settings,
    release: Release | None,
    make_engine: Callable[[Path], Engine],
    known: Mapping[str, LoadedModel],
) -> ModelRegistry:
    """Read the models folder; where the release is fixed, only as that."""
    if release is not None:  # before anything of another one takes time and memory
        require_release(read_release(settings.models_dir), release)
    registry = load_registry(
        settings.models_dir,
        settings.default_model,
        make_engine,
        known,
        shadow_name=settings.shadow_model,
        public_keys=settings.model_public_keys,
    )
    if release is not None:
        require_release(loaded_release(registry), release)
    return registry


def _make_authenticator(settings: Settings) -> Authenticator:
    tokens = None
    if settings.oauth_issuer and settings.oauth_audience and settings.oauth_jwks:
        tokens = TokenVerifier(settings.oauth_issuer, settings.oauth_audience, settings.oauth_jwks)
    authenticator = Authenticator(settings.api_keys_file, tokens)
    if authenticator.is_open:
        logger.warning(
            "AUTHENTICATION IS OFF: whoever reaches this service may use it. Set API_KEYS_FILE or "
            "OAUTH_ISSUER to tell callers apart."
        )
    return authenticator


def _viewer_settings(settings: Settings, *, has_feedback: bool) -> viewer.ViewerSettings:
    return viewer.ViewerSettings(
        embedders=settings.viewer_frame_ancestors.split(),
        feedback=has_feedback,
        authentication=settings.has_credentials,
        max_image_bytes=settings.max_image_bytes,
    )


def _smart_settings(settings: Settings) -> smart.SmartSettings:
    return smart.SmartSettings(
        client_id=settings.smart_client_id or "",
        issuers=[issuer.rstrip("/") for issuer in settings.smart_issuers.split()],
        authorization_origins=settings.smart_authorization_origins.split(),
        scopes=settings.smart_scopes,
    )


def _open_audit(
    settings: Settings, metrics: Metrics, *, has_feedback: bool
) -> tuple[Auditor | None, Feedback | None, CardRecorder | None]:
    """Open the logs of answers, of feedback and of cards; needs a running event loop."""
    folder, size = settings.audit_dir, settings.audit_max_file_bytes
    if folder is None:
        return None, None, None
    answers, required = AuditLog(folder, size), settings.audit_required
    feedback = cards = None
    if has_feedback:
        diagnoses = AuditLog(folder / FEEDBACK_FOLDER, size)
        feedback = Feedback(folder, AuditQueue(diagnoses), metrics)
    if settings.cds_hooks:
        log = AuditLog(folder / CARDS_FOLDER, size)
        cards = CardRecorder(AuditQueue(log), metrics, required=required)
    return (
        Auditor(AuditQueue(answers), metrics, settings.digest(), required=required),
        feedback,
        cards,
    )


def _open_trace_export(settings: Settings, metrics: Metrics) -> "TraceExport | None":
    """Open the way to the collector, where there is one.

    Raises:
        TracingUnavailableError: The extra `otel` is not installed.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    try:
        from app.trace_export import TraceExport
    except ImportError as error:
        raise TracingUnavailableError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra `otel` is not installed "
            "(`uv sync --frozen --inexact --extra otel`)."
        ) from error
    return TraceExport(
        str(settings.otel_exporter_otlp_endpoint),
        lambda reason, number: metrics.trace_spans_lost.labels(reason).inc(number),
    )


def _open_fhir_server(settings: Settings) -> "FhirServer | None":
    """Open the way to the FHIR server, where there is one."""
    if settings.fhir_server_url is None:
        return None
    access = None
    if settings.fhir_token_url and settings.fhir_client_id and settings.fhir_key_id:
        assert settings.fhir_private_key_file is not None  # noqa: S101  the settings see to it
        access = TokenAccess(
            str(settings.fhir_token_url),
            settings.fhir_client_id,
            settings.fhir_private_key_file,
            settings.fhir_key_id,
            settings.fhir_scope,
        )
    return open_fhir_server(str(settings.fhir_server_url), access, settings.fhir_timeout_seconds)


def _routers(settings: Settings, *, has_feedback: bool) -> list[APIRouter]:
    """The routes of what is configured.

    Raises:
        DicomSupportMissingError: DICOM jobs are, and what reads DICOM is not installed.
    """
    routers = [module.router for module in (predict, batch, fhir, models, operations)]
    shown = _viewer_settings(settings, has_feedback=has_feedback)
    routers.append(viewer.make_router(shown))
    if settings.smart_client_id is not None:
        routers.append(smart.make_router(_smart_settings(settings), shown.embedders))
    if has_feedback:
        routers.append(feedback_routes.router)
    if settings.has_credentials:
        routers.append(admin.router)
    if settings.cds_hooks:
        page = None if settings.public_url is None else str(settings.public_url)
        routers.append(cds.make_router(page))
    if settings.dicom_queue_dir is not None:
        try:
            from app.api import dicom
        except ImportError as error:
            raise DicomSupportMissingError(
                "DICOM_QUEUE_DIR is set, and the extra `interop` is not installed "
                "(`uv sync --frozen --inexact --extra interop`)."
            ) from error
        routers.append(dicom.router)
    return routers


@asynccontextmanager
async def _dicom(settings: Settings, services: Services) -> AsyncIterator["DicomWorker | None"]:
    """The DICOM worker and its listener while the service runs; None where there is none."""
    if settings.dicom_queue_dir is None:
        yield None
        return
    from app.api.dicom_service import run_dicom

    async with run_dicom(settings, settings.dicom_queue_dir, services) as worker:
        yield worker


async def _test_repeatedly(fleet: Fleet, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        await fleet.self_test()
