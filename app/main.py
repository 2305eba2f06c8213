"""Wire the service together; nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

import anyio
from fastapi import FastAPI

from app.api import admin, batch, models, operations, predict, viewer
from app.api import feedback as feedback_routes
from app.api.admission import Admission
from app.api.auditor import Auditor
from app.api.deps import Services
from app.api.errors import install_error_handlers
from app.api.feedback import FEEDBACK_PREFIX, MAX_FEEDBACK_BYTES, Feedback
from app.api.middleware import Admit, LimitBody, LimitTime, Observe
from app.api.openapi import describe_problems
from app.audit import AuditLog, AuditQueue
from app.domain.notice import RESEARCH_USE_NOTICE
from app.feedback import FEEDBACK_FOLDER
from app.inference.batcher import BatchLimits
from app.inference.fleet import Fleet
from app.inference.registry import load_registry
from app.inference.runtimes import engine_maker
from app.settings import Settings
from app.telemetry import Metrics

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
    for module in (predict, batch, models, operations):
        app.include_router(module.router)
    if settings.audit_dir is not None:
        app.include_router(feedback_routes.router)
    if settings.admin_token_sha256 is not None:
        app.include_router(admin.make_router(settings.admin_token_sha256))
    app.include_router(viewer.make_router(_viewer_settings(settings)))
    install_error_handlers(app)
    describe_problems(app)
    app.add_middleware(
        LimitBody,
        max_image_bytes=settings.max_image_bytes,
        max_bytes_by_prefix={
            "/predict/batch": settings.max_batch_bytes,
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


def _viewer_settings(settings: Settings) -> viewer.ViewerSettings:
    return viewer.ViewerSettings(
        embedders=settings.viewer_frame_ancestors.split(),
        feedback=settings.audit_dir is not None,
        max_image_bytes=settings.max_image_bytes,
    )


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


async def _test_repeatedly(fleet: Fleet, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        await fleet.self_test()
