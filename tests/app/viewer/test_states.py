"""What the page does while it waits, where the service refuses, and where it cannot be reached."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.access.keys import create_key
from app.access.scopes import Scope
from app.domain.notice import RESEARCH_USE_NOTICE
from tests.app.api.hanging import HangingEngine
from tests.app.viewer.conftest import (
    GREEN,
    LESION,
    OpenPage,
    card_of,
    choose,
    service_with,
    upload,
)

NUM_IMAGES = 20

BREAK_NEXT_BODY = """() => {
  const real = window.fetch;
  window.fetch = async (...asked) => {
    const answer = await real(...asked);
    if (!String(asked[0]).includes("/predict")) return answer;
    window.fetch = real;
    const broken = new ReadableStream({ start: (body) => body.error(new TypeError("network")) });
    return new Response(broken, { status: 200 });
  };
}"""
HOLD_PICTURES = """() => {
  window.held = [];
  const real = HTMLCanvasElement.prototype.toBlob;
  HTMLCanvasElement.prototype.toBlob = function (...asked) {
    held.push(() => real.apply(this, asked));
  };
}"""
HOLD_CAMERAS = """() => {
  window.held = [];
  window.given = [];
  const devices = navigator.mediaDevices;
  const real = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (asked) => {
    await new Promise((go) => held.push(go));
    const stream = await real(asked);
    given.push(stream);
    return stream;
  };
}"""


@contextmanager
def hanging(app: FastAPI) -> Iterator[HangingEngine]:
    """Hold the default model's answers until they are released."""
    model = app.state.services.fleet.registry.default
    engine = HangingEngine(model.engine)
    object.__setattr__(model, "engine", engine)
    try:
        yield engine
    finally:
        engine.release.set()


def test_twenty_images_in_a_queue(page: Page) -> None:
    in_progress, most = set[Any](), 0

    def begin(request: Any) -> None:
        nonlocal most
        if "/predict" in request.url:
            in_progress.add(request)
            most = max(most, len(in_progress))

    page.on("request", begin)
    page.on("requestfinished", lambda request: in_progress.discard(request))  # noqa: PLW0108
    files = [upload(f"lesion-{n}.png", GREEN if n == 4 else LESION) for n in range(NUM_IMAGES)]
    choose(page, *files)
    expect(page.locator("#progress")).to_contain_text("20 of 20 done")
    assert page.locator("#progress progress").evaluate("e => [e.value, e.max]") == [20, 20]
    assert 1 < most <= 3
    badges = page.locator(".case .badge").all_inner_texts()
    assert badges == ["Refused" if n == 4 else "May be read" for n in range(NUM_IMAGES)]
    page.get_by_role("button", name="Remove image 1", exact=True).click()
    expect(page.locator("#answer .answer-of")).to_contain_text("lesion-1.png")
    expect(page.locator(".case.is-selected .case-open")).to_be_focused()
    page.get_by_role("button", name="Remove all images").click()
    expect(page.locator(".case")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()


def test_overload_is_waited_out(open_page: OpenPage, viewer_models: Path) -> None:
    settings = {"models_dir": viewer_models, "default_model": "heavy"}
    with (
        service_with(**settings, max_predictions_in_progress=1) as (address, app),
        hanging(app) as engine,
    ):
        page = open_page(address)
        other = Thread(
            target=httpx2.post, args=(f"{address}/predict",), kwargs={"files": {"image": LESION}}
        )
        other.start()
        assert engine.started.wait(30)
        choose(page, upload("a.png"), upload("b.png"))
        expect(page.locator("#answer .state-busy")).to_contain_text("asked about again in")
        expect(page.locator(".case .badge").first).to_contain_text("Busy, again in")
        expect(page.locator("#status")).to_contain_text("The service is busy")
        engine.release.set()
        other.join()
        expect(page.locator("#progress")).to_contain_text("2 of 2 done")
        assert page.locator(".case .badge").all_inner_texts() == ["May be read"] * 2
        page.context.close()


def test_a_lost_connection_is_waited_out(page: Page) -> None:
    context: BrowserContext = page.context
    context.set_offline(True)
    choose(page, upload())
    expect(page.locator("#answer .state-offline")).to_contain_text("cannot be reached")
    context.set_offline(False)
    expect(page.locator("#answer .decision-report")).to_be_visible()


def test_a_page_that_opens_before_the_service_waits_for_it(
    open_page: OpenPage, page: Page, service: str
) -> None:
    page.route("**/models", lambda route: route.abort())
    page.reload()
    page.get_by_role("button", name="Drawn picture 2").click()
    page.unroute("**/models")
    expect(page.locator("#answer .origin")).to_be_visible()
    expect(page.locator("#model option")).to_have_count(5)


def test_a_used_up_quota_and_a_broken_body_are_waited_out(page: Page) -> None:
    page.route(
        "**/predict?*",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json={}),
        times=1,
    )
    choose(page, upload())
    expect(page.locator("#answer .state-busy")).to_be_visible()
    expect(page.locator("#answer .decision-report")).to_be_visible()
    page.evaluate(BREAK_NEXT_BODY)
    choose(page, upload("second.png"))
    page.get_by_role("button", name="second.png").click()
    expect(page.locator("#answer .state-offline")).to_be_visible()
    expect(page.locator("#answer .decision-report")).to_be_visible()


def test_settings_that_do_not_come_are_asked_for_again(page: Page) -> None:
    page.clock.install()
    page.route("**/viewer/settings.json", lambda route: route.fulfill(status=502, body="proxy"))
    page.reload()
    expect(page.locator("#troubles")).to_contain_text("does not tell its models")
    page.unroute("**/viewer/settings.json")
    page.clock.fast_forward(11_000)
    expect(page.locator("#model option")).to_have_count(5)
    expect(page.locator("#troubles")).to_be_empty()


def test_a_press_on_an_image_survives_what_happens_meanwhile(
    open_page: OpenPage, viewer_models: Path
) -> None:
    settings = {"models_dir": viewer_models, "default_model": "heavy"}
    with service_with(**settings) as (address, app), hanging(app) as engine:
        page = open_page(address)
        choose(page, upload("a.png"), upload("b.png"))
        page.locator(".case").last.locator(".badge").hover()
        page.mouse.down()
        engine.release.set()
        expect(page.locator("#progress")).to_contain_text("2 of 2 done")
        page.mouse.up()
        expect(page.locator("#answer .answer-of")).to_contain_text("b.png")
        page.context.close()


def test_what_comes_after_all_was_removed_is_not_taken(page: Page) -> None:
    page.evaluate(HOLD_PICTURES)
    page.get_by_role("button", name="Drawn picture 1").click()
    expect(page.locator(".case")).to_have_count(1)
    page.click("#capture")
    page.wait_for_function("() => document.querySelector('#camera video').videoWidth > 0")
    page.click("#camera .primary")
    page.get_by_role("button", name="Remove all images").click()
    expect(page.locator("#status")).to_be_empty()
    assert page.evaluate("() => { held.forEach((go) => go()); return held.length; }") == 1
    # Whatever comes now comes after it.
    choose(page, upload("other.png"))
    expect(page.locator("#answer .decision-report")).to_be_visible()
    assert page.locator(".case .case-name").all_inner_texts() == ["2 other.png"]


def test_a_camera_that_comes_too_late_is_switched_off(page: Page) -> None:
    page.evaluate(HOLD_CAMERAS)
    page.click("#capture")
    page.keyboard.press("Escape")
    page.click("#capture")
    page.evaluate("() => held.forEach((go) => go())")
    page.wait_for_function("() => document.querySelector('#camera video').videoWidth > 0")
    assert page.evaluate("() => given.map((stream) => stream.active)") == [False, True]
    page.keyboard.press("Escape")
    page.wait_for_function("() => given.every((stream) => !stream.active)")


def test_a_refusal_is_shown_in_the_services_words(page: Page) -> None:
    choose(page, upload("notes.png", b"no picture at all"))
    refusal = page.locator("#answer .decision-failed")
    expect(refusal).to_contain_text("The service refused this image")
    expect(refusal).to_contain_text("Image Format")
    expect(refusal).to_contain_text("JPEG, PNG")
    expect(page.locator(".case .badge")).to_have_text("No answer")
    with page.expect_response("**/predict?*"):
        page.get_by_role("button", name="Try again").click()
    expect(page.locator("#answer")).to_be_focused()


def test_what_failed_of_another_model_is_asked_again(page: Page) -> None:
    page.route("**/predict?*model=light*", lambda route: route.fulfill(status=504), times=1)
    busy = {"status": 503, "headers": {"Retry-After": "2"}, "json": {}}
    page.route("**/predict?*model=light*", lambda route: route.fulfill(**busy), times=1)
    page.route("**/predict?*class=mel*", lambda route: route.fulfill(status=504), times=1)
    choose(page, upload())
    page.get_by_role("button", name="All models").click()
    light = card_of(page, "light")
    expect(light.locator(".waiting")).to_have_text(re.compile(r"asked about again in [12] s\."))
    light.get_by_role("button", name="Try again").click()
    expect(light).to_contain_text("Confidence")
    page.get_by_role("button", name="Image", exact=True).click()
    page.get_by_label("Evidence for").select_option("mel")
    expect(page.locator(".heat-notes")).to_contain_text("gave no such heatmap")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#look .legend")).to_contain_text("evidence for Melanoma")
    expect(page.locator(".heat-again")).to_be_hidden()


def test_a_file_of_too_many_bytes_is_not_sent(open_page: OpenPage, viewer_models: Path) -> None:
    with service_with(models_dir=viewer_models, default_model="heavy", max_image_bytes=2048) as (
        address,
        _,
    ):
        page = open_page(address)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        choose(page, upload())
        expect(page.locator("#answer")).to_contain_text("It was not sent")
        assert [url for url in asked if "/predict" in url] == []
        assert page.get_by_role("button", name="Try again").count() == 0
        page.context.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("confidence", 7),
        ("probabilities", None),
        ("heatmap", {"map": [[1]], "scale": 1}),
        ("decision", {"action": "report"}),
        ("operating_points", [{"target": "melanoma"}]),
    ],
)
def test_half_an_answer_is_not_shown(page: Page, service: str, field: str, value: object) -> None:
    answer = httpx2.post(f"{service}/predict", files={"image": LESION}).json()
    page.route("**/predict?*", lambda route: route.fulfill(json={**answer, field: value}))
    choose(page, upload())
    expect(page.locator("#answer .decision-failed")).to_contain_text("is not shown")
    assert "Confidence" not in page.locator("#answer").inner_text()


def test_feedback_is_recorded_where_the_service_takes_it(
    open_page: OpenPage, page: Page, viewer_models: Path, tmp_path: Path
) -> None:
    choose(page, upload())
    expect(page.locator("#answer .origin")).to_be_visible()
    assert page.locator(".feedback").count() == 0
    settings = {"models_dir": viewer_models, "default_model": "heavy", "audit_dir": tmp_path}
    with service_with(**settings) as (address, _):
        page = open_page(address)
        choose(page, upload("Erika Mustermann.png"))
        label = page.locator(".result-class").inner_text()
        page.get_by_text("Report the diagnosis").click()
        page.get_by_role("button", name="Send").click()  # nothing is chosen: nothing is sent
        page.get_by_label("Diagnosis").select_option(label=label)
        page.get_by_label("Known from").select_option("histo")
        page.route("**/feedback/*", lambda route: route.fulfill(status=502), times=1)
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".feedback h2")).to_have_text("The diagnosis was not recorded")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".feedback")).to_contain_text("The model had the same class")
        page.context.close()
    (record,) = (tmp_path / "feedback").glob("*.jsonl")
    assert record.read_text().count('"source":"histo"') == 1
    assert "Mustermann" not in "".join(p.read_text() for p in tmp_path.rglob("*.jsonl"))


def test_print_and_copy(open_page: OpenPage, service: str) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    choose(page, upload("Erika Mustermann.png"))
    page.get_by_role("button", name="Copy as text").click()
    expect(page.locator("#status")).to_have_text("Copied.")
    text = page.evaluate("() => navigator.clipboard.readText()")
    assert text.startswith(RESEARCH_USE_NOTICE)
    assert "Mustermann" not in text
    request_id = page.locator(".origin dd").nth(3).inner_text()
    for part in ("The answer may be read", "Melanoma: ", "heavy@1", request_id):
        assert part in text
    page.emulate_media(media="print")
    for shown in (".notice", ".caption", "#look .plane", ".decision", ".probabilities", ".origin"):
        expect(page.locator(shown).first).to_be_visible()
    expect(page.locator("#answer .answer-notice")).to_have_text(RESEARCH_USE_NOTICE)
    expect(page.locator("#answer .answer-notice")).to_be_visible()
    for hidden in (".tray", ".tools", ".actions", ".head-tools"):
        expect(page.locator(hidden)).to_be_hidden()


def test_what_is_copied_has_the_pages_caveats(open_page: OpenPage, service: str) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.locator("#tta").check()

    def copied() -> str:
        expect(page.locator("#answer .origin")).to_be_visible()
        page.get_by_role("button", name="Copy as text").click()
        expect(page.locator("#status")).to_have_text("Copied.")
        text: str = page.evaluate("() => navigator.clipboard.readText()")
        return text

    choose(page, upload())
    text = copied()
    for caveat in (
        "It is no all-clear",
        "Calibrated on HAM10000",
        "below a threshold is not free of disease",
        "The model card says what came of it",
        "no second opinion",
    ):
        assert caveat in page.locator("#answer").inner_text()
        assert caveat in text
    assert "drawn" not in text
    page.get_by_role("button", name="Remove all images").click()
    page.get_by_role("button", name="Drawn picture 2").click()
    expect(page.locator("#answer .answer-of")).to_contain_text("drawn, no patient's")
    assert "drawn, no patient's" in copied()
    page.get_by_role("button", name="Remove all images").click()
    choose(page, upload(content=GREEN))
    assert "It says nothing about the lesion" in copied()


def test_text_to_copy_by_hand_where_the_browser_forbids_the_clipboard(page: Page) -> None:
    page.evaluate(
        "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
    )
    choose(page, upload())
    page.get_by_role("button", name="Copy as text").click()
    assert RESEARCH_USE_NOTICE in page.locator("#copy textarea").input_value()


def test_a_reader_gives_a_credential_and_what_was_refused_is_asked_again(
    browser: Browser, viewer_models: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.jsonl"
    key = create_key(keys, "reader", [Scope.PREDICT, Scope.MODELS_READ], None)
    settings = {"models_dir": viewer_models, "default_model": "heavy", "api_keys_file": keys}
    with service_with(**settings) as (address, _):
        page = browser.new_page(locale="en-GB")
        page.goto(address)
        field = page.get_by_label("Access key")
        expect(field).to_be_visible()
        choose(page, upload())
        expect(page.locator("#answer .decision-failed")).to_be_visible()
        expect(page.locator("#model option")).to_have_count(1)
        field.fill(f" {key} ")
        field.press("Enter")
        expect(page.locator("#answer .decision")).to_contain_text("The answer may be read")
        expect(page.locator("#model option").nth(1)).to_be_attached()
        assert key not in page.url
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert key not in page.evaluate(kept)
        page.close()


def test_without_credentials_there_is_no_field_for_one(page: Page) -> None:
    expect(page.locator("#access")).to_be_hidden()
