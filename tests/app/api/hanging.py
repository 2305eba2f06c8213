"""A service whose default model answers only when a test lets it."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.domain.golden import Outputs
from app.domain.images import RgbImage
from app.inference.models import Engine
from app.main import create_app
from app.settings import Settings


class HangingEngine:
    """A model call that lasts until it is released.

    Attributes:
        runtime: Of what it stands before.
        batch_sizes: Of the calls so far.
    """

    def __init__(self, inner: Engine) -> None:
        self.inner, self.started, self.release = inner, threading.Event(), threading.Event()
        self.runtime = inner.runtime
        self.batch_sizes: list[int] = []

    def predict(self, images: RgbImage) -> Outputs:
        self.batch_sizes.append(len(images))
        self.started.set()
        assert self.release.wait(30)
        return self.inner.predict(images)


@asynccontextmanager
async def hanging_service(
    settings: Settings,
) -> AsyncIterator[tuple[FastAPI, AsyncClient, HangingEngine]]:
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        model = application.state.services.fleet.registry.default
        engine = HangingEngine(model.engine)
        object.__setattr__(model, "engine", engine)
        transport = ASGITransport(application)
        async with AsyncClient(transport=transport, base_url="http://service") as http:
            yield application, http, engine
