"""Everybody can use the page: by keys, with a screen reader, in German, on any screen."""

from collections.abc import Callable
from typing import TypeAlias

import pytest
from playwright.sync_api import Page, expect

from tests.app.viewer.conftest import GREEN, OpenPage, choose, upload
from tests.programs import require_peer

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
Arrange: TypeAlias = Callable[[Page], None]


def _empty(page: Page) -> None:
    expect(page.locator(".readings")).to_be_visible()


def _answered(page: Page) -> None:
    page.locator("#tta").check()
    choose(page, upload(), upload("green.png", GREEN))
    expect(page.locator("#progress")).to_contain_text("2")
    expect(page.locator("#answer .origin")).to_be_visible()
    expect(page.locator(".case .badge-reject")).to_be_visible()


def _rejected(page: Page) -> None:
    choose(page, upload("green.png", GREEN))
    expect(page.locator("#answer .decision-reject")).to_be_visible()
    expect(page.locator("#answer .origin")).to_be_visible()


def _models(page: Page) -> None:
    _answered(page)
    page.locator("#modes button").nth(1).click()
    expect(page.locator(".card .badge")).to_have_count(4)


def _times(page: Page) -> None:
    _answered(page)
    page.locator("#modes button").nth(2).click()
    expect(page.locator("#times .badge")).to_have_count(2)


def _refused(page: Page) -> None:
    choose(page, upload("notes.png", b"no picture"))
    expect(page.locator("#answer .decision-failed")).to_be_visible()


def _busy(page: Page) -> None:
    page.route(
        "**/predict?*", lambda route: route.fulfill(status=503, headers={"Retry-After": "60"})
    )
    choose(page, upload())
    expect(page.locator("#answer .state-busy")).to_be_visible()


def _offline(page: Page) -> None:
    page.context.set_offline(True)
    choose(page, upload())
    expect(page.locator("#answer .state-offline")).to_be_visible()


def _camera(page: Page) -> None:
    page.locator("#capture").click()
    expect(page.locator("#camera select option")).to_have_count(1)


STATES = (_empty, _answered, _rejected, _models, _times, _refused, _busy, _offline, _camera)


@pytest.mark.parametrize("arrange", STATES, ids=lambda state: state.__name__.strip("_"))
def test_axe_finds_nothing(open_page: OpenPage, arrange: Arrange) -> None:
    axe = require_peer("axe-core/axe.min.js").read_text(encoding="utf-8")
    page = open_page()
    arrange(page)
    page.evaluate(axe)
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        found = page.evaluate("rules => axe.run({ runOnly: rules })", RULES)
        assert len(found["passes"]) > 20
        violations = [
            (violation["id"], [node["html"] for node in violation["nodes"]])
            for violation in found["violations"]
        ]
        assert violations == [], theme


def _tab_to(page: Page, selector: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached with the tabulator key")


def test_keys_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    _tab_to(page, ".examples button")
    page.keyboard.press("Enter")
    expect(page.locator(".case .badge")).to_have_count(1)
    expect(page.locator("#answer .origin")).to_be_visible()
    _tab_to(page, "#choose")
    page.locator("#files").evaluate(  # the system's own dialog is no part of the page
        "files => files.addEventListener('click', (event) => {"
        " event.preventDefault(); files.dataset.opened = 'yes'; })"
    )
    page.keyboard.press("Enter")
    expect(page.locator("#files")).to_have_attribute("data-opened", "yes")
    choose(page, upload())
    expect(page.locator(".case")).to_have_count(2)
    _tab_to(page, ".case:nth-child(2) .case-open")
    page.keyboard.press("Enter")
    expect(page.locator(".case:nth-child(2) .case-open")).to_be_focused()
    expect(page.locator("#answer .decision-report")).to_be_visible()
    _tab_to(page, "#modes [data-key=look]")
    _tab_to(page, "#look .viewport")
    outline = page.locator("#look .viewport").evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline != "none"
    page.keyboard.press("h")
    expect(page.get_by_label("Heatmap")).not_to_be_checked()
    _tab_to(page, "#look input[type=range]")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#look output")).to_have_text("55%")
    _tab_to(page, ".actions button")
    page.keyboard.press("Shift+Tab")
    for _ in range(40):
        if page.evaluate("() => document.activeElement.matches('[data-key=models]')"):
            break
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator(".card .badge")).to_have_count(4)
    expect(page.locator("#modes [data-key=models]")).to_be_focused()


def test_german_without_a_reload_and_in_the_address(page: Page) -> None:
    choose(page, upload())
    expect(page.locator("#answer .origin")).to_be_visible()
    page.locator("#language").select_option("de")
    expect(page.locator("#answer .decision")).to_contain_text("Das Ergebnis darf gelesen werden")
    expect(page.locator("#notice")).to_contain_text("Kein Medizinprodukt")
    expect(page.locator(".probabilities")).to_contain_text(" %")
    assert page.evaluate("() => document.documentElement.lang") == "de"
    page.locator("#theme").select_option("dark")
    page.reload()
    expect(page.locator("#choose")).to_have_text("Bilder wählen")
    assert page.evaluate("() => getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_the_browsers_language_is_the_pages(open_page: OpenPage) -> None:
    expect(open_page(locale="de-CH").locator("#choose")).to_have_text("Bilder wählen")


@pytest.mark.parametrize("width", [320, 768, 1024, 1440, 3840])
def test_nothing_is_cut_off_at_any_width(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    choose(page, *[upload(f"{n}.png") for n in range(3)])
    expect(page.locator("#answer .origin")).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    decision, image = (
        page.locator(s).bounding_box() for s in ("#answer .decision", "#look .plane")
    )
    assert decision
    assert image
    assert image["width"] > 200
    if width >= 768:  # both at once, without scrolling
        assert decision["y"] + decision["height"] < 900
        assert image["y"] + image["height"] < 900


def test_an_answer_is_announced(page: Page) -> None:
    expect(page.locator("#status")).to_have_attribute("role", "status")
    choose(page, upload())
    expect(page.locator("#status")).to_have_text("Image 1: The answer may be read")
