"""`python -m tests.app.viewer.pictures`: the pictures of docs/viewer.md, of drawn lesions alone."""

from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from app.domain.heatmaps import encode_png
from tests.app.viewer.conftest import ARGUMENTS, choose, service_with, upload
from tests.conftest import REPOSITORY
from tests.programs import require_program
from training.synthetic import draw_lesion

FOLDER: Final = REPOSITORY / "docs" / "images"
LESIONS: Final = [
    upload(f"drawn-{name}.png", encode_png(draw_lesion(seed, kind, 640, 480)))
    for name, seed, kind in (("a", 3, 6), ("b", 11, 4), ("c", 5, 5))
]
"""Chosen as files: a reader's own pictures have no label that they are drawn."""
DESK: Final = {"width": 1440, "height": 1120}
TABLET: Final = {"width": 1024, "height": 1366}


def main(folder: Path = FOLDER) -> None:
    """Write all four."""
    settings = {"models_dir": REPOSITORY / "models", "out_of_distribution_gate": "advise"}
    with service_with(**settings) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_program("chromium"), args=ARGUMENTS
        )
        page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
        page.goto(f"{address}/?lang=en&theme=light")
        _open(page)
        _save(page, folder / "viewer-answer.png")
        page.get_by_role("button", name="All models").click()
        expect(page.locator(".agreement")).not_to_contain_text("have answered", timeout=60_000)
        _save(page, folder / "viewer-models.png")
        page.get_by_role("button", name="Two images").click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('#times .plane')].every((one) => !one.hidden)"
        )
        _save(page, folder / "viewer-two-images.png")
        tablet = browser.new_page(viewport=TABLET)  # type: ignore[arg-type]
        tablet.goto(f"{address}/?lang=de&theme=dark")
        _open(tablet)
        _save(tablet, folder / "viewer-tablet.png")
        browser.close()


def _save(page: Page, path: Path) -> None:
    """In 256 colours: a third of the bytes."""
    shown = Image.open(BytesIO(page.screenshot())).convert("RGB")
    shown.quantize(256).save(path, optimize=True)


def _open(page: Page) -> None:
    choose(page, *LESIONS)
    expect(page.locator("#progress progress")).to_have_js_property(
        "value", len(LESIONS), timeout=60_000
    )
    expect(page.locator("#look .plane")).to_be_visible()
    expect(page.locator("#look .legend")).to_be_visible()


if __name__ == "__main__":
    main()
