"""Whatever a file is called, and whatever comes back, is text; and nothing is left behind."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.app.viewer.conftest import LESION, choose, upload

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def planted(value: Any) -> Any:
    """An answer with every text in it replaced by a hostile one, as far as it is still accepted."""
    if isinstance(value, dict):
        return {HOSTILE + key if key == "nv" else key: planted(v) for key, v in value.items()}
    if isinstance(value, list):
        return [planted(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.fixture
def watched(page: Page) -> Iterator[Page]:
    yield page
    assert page.title() == "DermHybrid"
    assert page.locator("main img[src=x], main script").count() == 0


def test_a_hostile_file_name(watched: Page) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    choose(watched, upload(name))
    expect(watched.locator("#answer .origin")).to_be_visible()
    expect(watched.locator(".answer-of")).to_contain_text(name)
    expect(watched.locator(".caption")).to_contain_text(name)


def test_a_hostile_problem(watched: Page) -> None:
    problem = {"type": HOSTILE, "title": HOSTILE, "detail": HOSTILE, "request_id": HOSTILE}
    watched.route(
        "**/predict?*",
        lambda route: route.fulfill(
            status=422, body=json.dumps(problem), content_type="application/problem+json"
        ),
    )
    choose(watched, upload())
    expect(watched.locator("#answer .decision-failed")).to_contain_text(HOSTILE)


def test_a_hostile_answer(watched: Page, service: str) -> None:
    answer = httpx2.post(f"{service}/predict", files={"image": LESION}).json()
    heatmap = {**answer["heatmap"], "model": HOSTILE, "method": HOSTILE, "flags": [HOSTILE]}
    hostile = {
        **planted(answer),
        "heatmap": {**heatmap, "explained_class": HOSTILE},
        "decision": {"action": "refer", "reasons": [HOSTILE], "sentence": HOSTILE},
        "predicted_class": {"label": HOSTILE, "malignancy": HOSTILE},
        "probabilities": {HOSTILE: 0.9, "mel": 0.1},
        "quality": {"issues": [HOSTILE], "scores": {}},
    }
    watched.route("**/predict?*", lambda route: route.fulfill(json=hostile))
    choose(watched, upload())
    expect(watched.locator(".result-class")).to_have_text(HOSTILE)
    expect(watched.locator("#look .legend")).to_contain_text(HOSTILE)
    watched.get_by_role("button", name="All models").click()
    expect(watched.locator(".card-class").first).to_have_text(HOSTILE)


def test_an_unknown_action_is_a_refusal(page: Page, service: str) -> None:
    answer = httpx2.post(f"{service}/predict", files={"image": LESION}).json()
    answer["decision"] = {"action": "perhaps", "reasons": [], "sentence": ""}
    page.route("**/predict?*", lambda route: route.fulfill(json=answer))
    choose(page, upload())
    expect(page.locator("#answer .decision-reject")).to_contain_text("No answer is given")
    assert "Confidence" not in page.locator("#answer").inner_text()


def test_markup_cannot_be_made_of_text(page: Page) -> None:
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } }"
    )
    assert refused == "TypeError"


@pytest.mark.parametrize("mode", ["look", "models", "times"])
def test_removing_images_forgets_them(page: Page, mode: str) -> None:
    names = ("Erika Mustermann.png", "Max Mustermann.png")
    choose(page, *(upload(name) for name in names))
    expect(page.locator("#progress")).to_contain_text("2 of 2 done")
    for shown in ("times", "models", mode):
        page.click(f"#modes [data-key={shown}]")
    expect(page.locator(f"#{mode} img").first).to_be_visible()
    page.get_by_role("button", name="Remove all images").click()
    expect(page.locator("#welcome")).to_be_visible()
    left = page.content()
    assert "Mustermann" not in left
    assert "blob:" not in left
    assert page.locator(".result, .decision li, .card, .changes").count() == 0


def test_nothing_of_an_image_is_left_behind(page: Page) -> None:
    sent: list[tuple[str, str]] = []
    page.on("request", lambda request: sent.append((request.url, str(request.headers))))
    choose(page, upload("Erika Mustermann.png"))
    expect(page.locator("#answer .origin")).to_be_visible()
    assert "Mustermann" not in f"{sent} {page.url} {page.title()}"
    for storage in ("localStorage", "sessionStorage", "document.cookie"):
        assert page.evaluate(f"() => {storage}.length") == 0
    assert page.evaluate("async () => (await indexedDB.databases()).length") == 0
    assert page.evaluate("async () => (await caches.keys()).length") == 0
