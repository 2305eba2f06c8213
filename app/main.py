"""Wire the service together; nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio
from fastapi import APIRouter, FastAPI

from app.api import admin, batch, models, operations, predict
from app.api import feedback as feedback_routes
from app.api.admission import Admission
from app.api.auditor import Auditor
from app.api.deps import Services
from app.api.errors import install_error_handlers
from app.api.feedback import FEEDBACK_PREFIX, MAX_FEEDBACK_BYTES, Feedback
from app.api.middleware import Admit, LimitBody, LimitTime, Observe
from app.api.openapi import describe_problems
from app.audit import AuditLog, AuditQueue
from app.domain.errors import DicomSupportMissingError
from app.domain.notice import RESEARCH_USE_NOTICE
from app.feedback import FEEDBACK_FOLDER
from app.inference.batcher import BatchLimits
from app.inference.fleet import Fleet
from app.inference.registry import load_registry
from app.inference.runtimes import engine_maker
from app.settings import Settings
from app.telemetry import Metrics

if TYPE_CHECKING:
    from app.api.dicom_worker import DicomWorker

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Make the service.

    Args:
        settings: All of its configuration.

    Returns:
        An ASGI application. Its start-up loads and verifies every model and raises
        `app.domain.errors.ArtifactError` where one must not be served.
    """
    metrics = Metrics()
    limits = BatchLimits(
        max_items=settings.max_batch_size,
        max_wait_seconds=settings.max_batch_wait_seconds,
        max_waiting=settings.max_predictions_in_progress
        + settings.max_batches_in_progress * settings.max_batch_size,
    )
    doors = {
        "/predict": Admission(settings.max_predictions_in_progress),
        "/predict/batch": Admission(settings.max_batches_in_progress),
    }
    if settings.dicom_queue_dir is not None:
        doors["/dicom/studies"] = Admission(settings.max_batches_in_progress)
    make_engine = engine_maker(settings.runtime, settings.model_threads)
    load = partial(
        load_registry,
        settings.models_dir,
        settings.default_model,
        make_engine,
        shadow_name=settings.shadow_model,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        fleet = Fleet(load, limits, metrics)
        await fleet.reload()
        auditor, feedback = _open_audit(settings, metrics)
        app.state.services = Services(
            fleet=fleet,
            metrics=metrics,
            image_limits=settings.image_limits(),
            doors=tuple(doors.values()),
            gates=settings.gates(),
            max_overlay_side=settings.max_overlay_side,
            image_threads=anyio.CapacityLimiter(settings.image_workers),
            auditor=auditor,
            feedback=feedback,
            max_batch_images=settings.max_batch_images,
            batch_concurrency=settings.max_batch_size,
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
        for recorder in (auditor, feedback):
            if recorder is not None:
                await recorder.close()

    app = FastAPI(
        title="DermHybrid",
        summary="Class probabilities and heatmaps for dermatoscopic images.",
        description=f"**{RESEARCH_USE_NOTICE}**",
        version=version("dermhybrid"),
        lifespan=lifespan,
        # The interactive pages load scripts from a public host, which a hospital blocks.
        docs_url=None,
        redoc_url=None,
    )
    for router in _routers(settings):
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
        },
    )
    app.add_middleware(
        LimitTime,
        default_seconds=settings.request_timeout_seconds,
        max_seconds=settings.max_request_timeout_seconds,
    )
    app.add_middleware(Admit, doors=doors)
    app.add_middleware(Observe, metrics=metrics)
    return app


def _open_audit(settings: Settings, metrics: Metrics) -> tuple[Auditor | None, Feedback | None]:
    """Open the logs of answers and of feedback; needs a running event loop."""
    folder, size = settings.audit_dir, settings.audit_max_file_bytes
    if folder is None:
        return None, None
    answers, feedback = AuditLog(folder, size), AuditLog(folder / FEEDBACK_FOLDER, size)
    required = settings.audit_required
    return (
        Auditor(AuditQueue(answers), metrics, settings.digest(), required=required),
        Feedback(folder, AuditQueue(feedback), metrics),
    )


def _routers(settings: Settings) -> list[APIRouter]:
    """The routes of what is configured.

    Raises:
        DicomSupportMissingError: DICOM jobs are, and what reads DICOM is not installed.
    """
    routers = [module.router for module in (predict, batch, models, operations)]
    if settings.audit_dir is not None:
        routers.append(feedback_routes.router)
    if settings.admin_token_sha256 is not None:
        routers.append(admin.make_router(settings.admin_token_sha256))
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
    from app.api.dicom_worker import DicomWorker
    from app.interop.dicom_delivery import make_deliverer
    from app.interop.dicom_listener import StorageListener
    from app.interop.dicom_queue import JobQueue

    secret = settings.dicom_store_authorization
    deliver = make_deliverer(
        settings.dicom_store_url or settings.dicom_store_peer or "",
        secret.get_secret_value() if secret else None,
        settings.dicom_ae_title,
    )
    queue = JobQueue(settings.dicom_queue_dir, settings.dicom_max_waiting)
    worker = DicomWorker(
        services, queue, deliver, settings.dicom_max_attempts, settings.dicom_retry_seconds
    )
    try:
        if settings.dicom_listen_port is None:
            yield worker
        else:
            address = (settings.dicom_listen_host, settings.dicom_listen_port)
            listener = StorageListener(
                settings.dicom_ae_title, address, settings.max_image_bytes, worker.take
            )
            try:
                yield worker
            finally:
                await asyncio.to_thread(listener.close)
    finally:
        await worker.close()


async def _test_repeatedly(fleet: Fleet, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        await fleet.self_test()
