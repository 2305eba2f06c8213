"""The real service in a thread, and Chromium in front of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import sleep
from typing import TypeAlias

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect, sync_playwright
from starlette.types import ASGIApp

from app.domain.heatmaps import encode_png
from app.main import create_app
from app.settings import Settings
from tests.programs import require_program
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules, write_tiny_ensemble
from training.synthetic import draw_lesion

OpenPage: TypeAlias = Callable[..., Page]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
GRAIN = np.random.default_rng(1).normal(0, 20, (240, 320, 3))
LESION = encode_png(np.clip(draw_lesion(7, 4, 320, 240) + GRAIN, 0, 255).astype(np.uint8))
"""Without any issue of quality: as drawn it counts as blurred."""
GREEN = encode_png(np.full((240, 320, 3), (10, 240, 10), np.uint8))
"""Far from grey, which is all that the tiny models' training images span: they refuse it."""


def upload(
    name: str = "lesion.png", content: bytes = LESION, kind: str = "image/png"
) -> FilePayload:
    """A file as Playwright takes it."""
    return {"name": name, "mimeType": kind, "buffer": content}


def choose(page: Page, *files: FilePayload) -> None:
    """As if the reader had chosen files."""
    page.set_input_files("#files", files)


def card_of(page: Page, name: str) -> Locator:
    """What stands of a model under "All models"."""
    return page.locator(".card").filter(has=page.get_by_text(f"{name}@1", exact=True))


def tiff() -> bytes:
    """The lesion in a format that browsers cannot show."""
    buffer = BytesIO()
    Image.open(BytesIO(LESION)).save(buffer, "TIFF")
    return buffer.getvalue()


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """An application on a port of its own; its address."""
    config = uvicorn.Config(
        app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def service_with(**settings: object) -> Iterator[tuple[str, FastAPI]]:
    """The service with some settings: its address and the application."""
    app = create_app(Settings.model_validate({"runtime": "openvino", **settings}))
    with listening(app) as address:
        yield address, app


@pytest.fixture(scope="session")
def viewer_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with rules, their ensemble, and one that refuses nothing."""
    models = tmp_path_factory.mktemp("viewer")
    rules = tiny_rules(min_confidence=0.1, max_set_size=7, novelty=0.5)
    members = [
        write_tiny_artifact(
            models,
            name,
            attention=attention,
            seed=seed,
            calibration=tiny_calibration(tiny_point(threshold=1.0)),
            decision=rules,
        )
        for seed, (name, attention) in enumerate((("light", False), ("heavy", True)), start=1)
    ]
    write_tiny_artifact(models, "blind", seed=3)
    write_tiny_ensemble(models, members, (0.25, 0.75))
    return models


@pytest.fixture(scope="module")
def service(viewer_models: Path) -> Iterator[str]:
    """The address of a service whose default model has attention and rules."""
    with service_with(models_dir=viewer_models, default_model="heavy") as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Of each module its own: Playwright holds the thread's event loop while it runs."""
    path = require_program("chromium")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def own_origins(service: str) -> tuple[str, ...]:
    """Where a test's requests may go, beside the addresses that it opens."""
    return (service,)


@pytest.fixture
def open_page(browser: Browser, service: str, own_origins: tuple[str, ...]) -> Iterator[OpenPage]:
    """Open the page in a fresh profile; in the end, that it kept to its policy and its origin."""
    contexts = []
    problems: list[str] = []
    requests: list[str] = []
    addresses = set(own_origins)

    def open_one(
        address: str = service,
        query: str = "",
        ready: str = "#model option:nth-child(2)",
        **options: object,
    ) -> Page:
        addresses.add(address)
        context = browser.new_context(**{"locale": "en-GB", **options})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text) if "Security Policy" in message.text else None
            ),
        )
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}/{query}")
        page.locator(ready).first.wait_for(state="attached")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []
    allowed = tuple(f"{address}/" for address in addresses) + ("blob:",)
    assert [url for url in requests if not url.startswith(allowed)] == []


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """The page as it opens."""
    return open_page()
