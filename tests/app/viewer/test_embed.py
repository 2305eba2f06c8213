"""A record system holds the page in a frame and talks to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from app.access.keys import create_key
from app.access.scopes import Scope
from app.domain.notice import RESEARCH_USE_NOTICE
from tests.app.viewer.conftest import GREEN, LESION, OpenPage, listening, service_with

SEND = """([message, bytes]) => frames[0].postMessage(
  { ...message, image: bytes && new Blob([new Uint8Array(bytes)], { type: "image/png" }) }, "*",
)"""
HEARD = "type => heard.filter((message) => message.type === `dermhybrid:${type}`)"


async def hospital(request: Request) -> HTMLResponse:
    """A page that embeds the address of its query and writes down what it hears."""
    address = request.query_params["viewer"]
    return HTMLResponse(
        "<!doctype html><script>const heard = [];"
        "addEventListener('message', (event) => heard.push({ ...event.data, from: event.origin }));"
        f"</script><iframe src='{address}/?lang=en' width=1200 height=800></iframe>"
    )


@pytest.fixture(scope="module")
def hospitals() -> Iterator[tuple[str, str]]:
    """Two origins that embed what they are told to."""
    app = Starlette(routes=[Route("/", hospital)])
    with listening(app) as one, listening(app) as other:
        yield one, other


@pytest.fixture(scope="module")
def embedded(viewer_models: Path, hospitals: tuple[str, str]) -> Iterator[str]:
    """A service that the first hospital may embed."""
    with service_with(
        models_dir=viewer_models, default_model="heavy", viewer_frame_ancestors=hospitals[0]
    ) as (address, _):
        yield address


@pytest.fixture
def framed(open_page: OpenPage, embedded: str, hospitals: tuple[str, str]) -> Page:
    """The first hospital's page, once the frame listens."""
    page = open_page(embedded)
    page.goto(f"{hospitals[0]}/?viewer={embedded}")
    page.wait_for_function("() => heard.length > 0")
    return page


@pytest.fixture
def own_origins(service: str, embedded: str, hospitals: tuple[str, str]) -> tuple[str, ...]:
    """Where requests of these tests may go."""
    return service, embedded, *hospitals


def test_an_image_comes_by_message_and_its_answer_goes_back(framed: Page, embedded: str) -> None:
    (ready,) = framed.evaluate(HEARD, "ready")
    assert ready == {"type": "dermhybrid:ready", "version": 1, "from": embedded}
    message = {"type": "dermhybrid:open", "id": "study-1", "name": "left forearm"}
    framed.evaluate(SEND, [message, list(LESION)])
    viewer = framed.frame_locator("iframe")
    expect(viewer.locator("#answer .decision")).to_contain_text("The answer may be read")
    expect(viewer.locator(".caption")).to_contain_text("left forearm")
    (answer,) = framed.evaluate(HEARD, "answer")
    assert answer["id"] == "study-1"
    assert answer["answer"]["decision"]["action"] == "report"
    assert answer["answer"]["notice"] == RESEARCH_USE_NOTICE
    frame = framed.frames[1]
    frame.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(Error()); }")
    viewer.get_by_role("button", name="Copy as text").click()
    expect(viewer.locator("#copy")).to_be_visible()
    framed.evaluate(SEND, [{"type": "dermhybrid:clear"}, None])
    expect(viewer.locator(".case")).to_have_count(0)
    expect(viewer.locator("#answer .readings")).to_be_visible()
    expect(viewer.locator("#copy")).to_be_hidden()
    assert "left forearm" not in frame.content()
    assert viewer.locator("#copy textarea").count() == 0


def test_a_refusal_and_a_wrong_message_are_problems(framed: Page) -> None:
    framed.evaluate(SEND, [{"type": "dermhybrid:open", "id": "a"}, list(b"no picture")])
    framed.evaluate(SEND, [{"type": "dermhybrid:open", "id": "b"}, None])
    framed.evaluate(SEND, [{"type": "dermhybrid:open", "id": "c"}, list(GREEN)])
    framed.wait_for_function("() => heard.length === 4")
    problems = {message["id"]: message["problem"] for message in framed.evaluate(HEARD, "problem")}
    assert problems["a"]["status"] == 415
    assert problems["b"]["type"] == "message"
    (answer,) = framed.evaluate(HEARD, "answer")
    assert answer["id"] == "c"
    assert answer["answer"]["probabilities"] is None


def test_others_than_the_parent_are_not_heard(framed: Page) -> None:
    viewer = framed.frames[1]
    message = "{ type: 'dermhybrid:open', id: 'x', image: new Blob() }"
    viewer.evaluate(f"() => window.postMessage({message})")
    framed.evaluate(SEND, [{"type": "dermhybrid:open", "id": "y"}, list(LESION)])
    expect(framed.frame_locator("iframe").locator(".case")).to_have_count(1)
    framed.wait_for_function("() => heard.length === 2")
    assert [message.get("id") for message in framed.evaluate("() => heard")] == [None, "y"]


def test_a_page_without_a_key_forgets_as_well(
    open_page: OpenPage, viewer_models: Path, hospitals: tuple[str, str], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.jsonl"
    create_key(keys, "reader", [Scope.PREDICT, Scope.MODELS_READ], None)
    with service_with(
        models_dir=viewer_models, viewer_frame_ancestors=hospitals[0], api_keys_file=keys
    ) as (address, _):
        page = open_page(address, ready="#access:not([hidden])")
        page.goto(f"{hospitals[0]}/?viewer={address}")
        page.wait_for_function("() => heard.length > 0")
        page.evaluate(SEND, [{"type": "dermhybrid:open", "id": "a", "name": "Doe"}, list(LESION)])
        viewer = page.frame_locator("iframe")
        expect(viewer.locator(".case")).to_have_count(1)
        page.wait_for_function("() => heard.length > 1")
        (problem,) = page.evaluate(HEARD, "problem")
        assert problem["problem"]["status"] == 401
        page.evaluate(SEND, [{"type": "dermhybrid:clear"}, None])
        expect(viewer.locator(".case")).to_have_count(0)
        assert "Doe" not in page.frames[1].content()


def test_an_origin_that_is_not_named_may_not_embed_the_page(
    browser: Browser, embedded: str, hospitals: tuple[str, str]
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(f"{hospitals[1]}/?viewer={embedded}")
        assert page.frame_locator("iframe").locator("#choose").count() == 0
        assert page.evaluate("() => heard.length") == 0
