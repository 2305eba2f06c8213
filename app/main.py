"""Wire the service together; nothing else."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from anyio import to_thread
from fastapi import FastAPI

from app.api import models, operations, predict
from app.api.deps import Services
from app.api.errors import install_error_handlers
from app.api.middleware import LimitBody, Observe
from app.api.openapi import describe_problems
from app.domain.notice import RESEARCH_USE_NOTICE
from app.inference.engine import TensorFlowEngine
from app.inference.registry import load_registry
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

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        registry = await to_thread.run_sync(
            load_registry, settings.models_dir, settings.default_model, TensorFlowEngine
        )
        app.state.services = Services(
            registry=registry,
            metrics=metrics,
            image_limits=settings.image_limits(),
            admission=anyio.CapacityLimiter(settings.max_predictions_in_progress),
            image_threads=anyio.CapacityLimiter(settings.image_workers),
            model_threads=anyio.CapacityLimiter(1),
        )
        metrics.announce_models((model.manifest, model.digest) for model in registry.all())
        logger.info("ready")
        yield
        metrics.ready.set(0)

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
    for module in (predict, models, operations):
        app.include_router(module.router)
    install_error_handlers(app)
    describe_problems(app)
    app.add_middleware(LimitBody, max_image_bytes=settings.max_image_bytes)
    app.add_middleware(Observe, metrics=metrics)
    return app
