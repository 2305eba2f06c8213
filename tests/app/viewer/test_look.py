"""An image, its answer and its heatmap as a clinician sees them."""

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from app.domain.heatmaps import encode_png
from app.domain.labels import LABELS
from app.domain.notice import RESEARCH_USE_NOTICE
from tests.app.viewer.conftest import (
    GRAIN,
    GREEN,
    LESION,
    OpenPage,
    card_of,
    choose,
    service_with,
    tiff,
    upload,
)
from tests.conftest import REPOSITORY
from training.synthetic import draw_lesion

OTHER = encode_png(
    np.clip(draw_lesion(11, 5, 320, 240) + np.flip(GRAIN, axis=1), 0, 255).astype(np.uint8)
)
"""Another lesion."""

GIVE = """([how, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "lesion.png", { type: "image/png" }));
  const event = how === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  document.querySelector("#welcome").dispatchEvent(event);
}"""

BLEND = """() => {
  const [image, heat] = document.querySelector("#look .plane").children;
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  context.globalAlpha = Number(heat.style.opacity);
  context.drawImage(heat, 0, 0, canvas.width, canvas.height);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


def ask(service: str, image: bytes = LESION, **params: str) -> dict[str, Any]:
    query = {"heatmap_method": "grad-cam", **params}
    answer = httpx2.post(f"{service}/predict", params=query, files={"image": image})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("how", ["drop", "paste", "choose"])
def test_an_image_gets_its_answer_decision_first(page: Page, service: str, how: str) -> None:
    if how == "choose":
        choose(page, upload())
    else:
        page.evaluate(GIVE, [how, list(LESION)])
    answer = page.locator("#answer")
    expect(answer.locator(".decision")).to_contain_text("The answer may be read")
    expected = ask(service)
    text = answer.inner_text()
    assert text.index("The answer may be read") < text.index(
        f"Confidence {expected['confidence']:.1%}"
    )
    rows = answer.locator(".probabilities tbody tr")
    assert rows.count() == len(LABELS)
    shown = [re.search(r"[\d.]+(?=%)", row.split("\t")[-1]) for row in rows.all_inner_texts()]
    assert [float(match.group()) for match in shown if match] == pytest.approx(
        [round(100 * p, 1) for p in sorted(expected["probabilities"].values(), reverse=True)],
        abs=0.11,
    )
    for fact in (expected["model"]["digest"], "heavy@1", "openvino", "320 × 240, image/png"):
        assert fact in text
    assert "below 100.0%, the threshold of 90% sensitivity" in text
    expect(page.locator("#notice")).to_have_text(RESEARCH_USE_NOTICE)


def test_a_picture_is_taken_with_a_camera(page: Page) -> None:
    page.click("#capture")
    page.wait_for_function("() => document.querySelector('#camera video').videoWidth > 0")
    page.click("#camera .primary")
    expect(page.locator(".case")).to_contain_text("photograph.png")
    expect(page.locator("#answer .decision")).to_be_visible()


def test_the_heatmap_is_drawn_as_the_service_draws_it(page: Page, service: str) -> None:
    choose(page, upload())
    expect(page.locator(".legend")).to_be_visible()
    seen = np.array(page.evaluate(BLEND), np.float64).reshape(240, 320, 4)[..., :3]
    overlay = base64.b64decode(ask(service)["heatmap"]["overlay"])
    drawn = np.asarray(Image.open(BytesIO(overlay)), np.float64)
    plain = np.asarray(Image.open(BytesIO(LESION)), np.float64)
    assert np.abs(drawn - plain).mean() > 5
    assert np.abs(seen - drawn).mean() < 1.5


def test_opacity_and_visibility_of_the_heatmap(page: Page) -> None:
    choose(page, upload())
    expect(page.locator(".legend")).to_be_visible()
    page.get_by_label("Opacity").fill("35")
    expect(page.locator("#look .heat")).to_have_css("opacity", "0.35")
    expect(page.locator("#look output")).to_have_text("35%")
    drawn = (
        "document.querySelector('#look .heat').getContext('2d')"
        ".getImageData(100, 100, 1, 1).data[3]"
    )
    assert page.evaluate(drawn) > 0
    page.get_by_label("Heatmap").uncheck()
    assert page.evaluate(drawn) == 0


def test_method_and_class_to_explain(page: Page, service: str) -> None:
    choose(page, upload())
    expect(page.locator("#look .legend")).to_contain_text("Grad-CAM of heavy@1")
    with page.expect_response(lambda response: "heatmap_class=mel" in response.url):
        page.get_by_label("Evidence for").select_option("mel")
    scale = ask(service, heatmap_class="mel")["heatmap"]["scale"]
    expect(page.locator("#look .legend")).to_contain_text("evidence for Melanoma")
    expect(page.locator("#look .legend")).to_contain_text(f"{scale:.3f}".rstrip("0").rstrip("."))
    page.get_by_label("Method").select_option("attention")
    expect(page.locator("#look .legend")).to_contain_text("of no class")
    expect(page.get_by_label("Evidence for")).to_be_disabled()
    page.locator("#model").select_option("light@1")
    expect(page.locator("#answer .origin")).to_contain_text("light@1")
    expect(page.locator("#look .legend")).to_contain_text("Grad-CAM of light@1")
    assert page.get_by_label("Method").locator("option").all_inner_texts() == ["Grad-CAM"]


def test_zoom_and_pan(page: Page) -> None:
    choose(page, upload())
    expect(page.locator(".legend")).to_be_visible()
    plane = page.locator("#look .plane")
    page.locator("#look .viewport").focus()
    fitted = plane.bounding_box()
    page.keyboard.press("+")
    page.keyboard.press("+")
    near = plane.bounding_box()
    assert fitted
    assert near
    assert near["width"] == pytest.approx(fitted["width"] * 1.35**2, rel=0.01)
    page.keyboard.press("ArrowRight")
    moved = plane.bounding_box()
    assert moved
    assert moved["x"] < near["x"]
    viewport = page.locator("#look .viewport")
    viewport.click(position={"x": 30, "y": 200})  # no dragging is needed
    clicked = plane.bounding_box()
    assert clicked
    assert clicked["x"] > moved["x"]
    heatmap = page.get_by_label("Heatmap")
    for key, shown in (("H", False), ("h", True)):  # with and without the Caps Lock
        page.keyboard.press(key)
        assert heatmap.is_checked() is shown
    page.keyboard.press("0")
    assert plane.bounding_box() == fitted
    viewport.hover()
    page.mouse.wheel(0, -200)
    wheeled = plane.bounding_box()
    assert wheeled
    assert wheeled["width"] > fitted["width"]


def test_models_side_by_side(page: Page, service: str) -> None:
    choose(page, upload())
    page.get_by_role("button", name="All models").click()
    expect(page.locator(".agreement")).not_to_contain_text("have answered")
    answers = {name: ask(service, model=name) for name in ("heavy", "light", "blind", "ensemble")}
    cards = page.locator(".card")
    assert cards.count() == len(answers)
    for name, answer in answers.items():
        card = card_of(page, name)
        expect(card).to_contain_text(f"Confidence {answer['confidence']:.1%}")
        action = {"report": "May be read", "refer": "Refer"}[answer["decision"]["action"]]
        expect(card.locator(".badge")).to_have_text(action)
    agree = len({answer["predicted_class"]["label"] for answer in answers.values()}) == 1
    expect(page.locator(".agreement")).to_contain_text("same class" if agree else "disagree")
    expect(cards.filter(has_text="Ensemble")).to_contain_text("bit apart")


def test_a_flagged_heatmap_is_flagged_beside_other_models_too(page: Page, service: str) -> None:
    answer = ask(service, model="light")
    answer["heatmap"]["flags"] = ["border-dominated"]
    page.route("**/predict?*model=light*", lambda route: route.fulfill(json=answer))
    choose(page, upload())
    page.get_by_role("button", name="All models").click()
    light = card_of(page, "light")
    expect(light).to_contain_text("Read nothing into this map")
    expect(light).to_contain_text("border")
    assert page.locator(".card .flag").count() == 1


def test_answers_that_passed_their_own_check_are_not_withheld(page: Page, service: str) -> None:
    accepted = ask(service, model="light")
    page.route("**/predict?*model=light*", lambda route: route.fulfill(json=accepted))
    held: list[Route] = []
    for name in ("heavy", "ensemble"):
        page.route(f"**/predict?*model={name}*", lambda route: held.append(route))  # noqa: PLW0108
    choose(page, upload(content=GREEN))
    page.get_by_role("button", name="All models").click()
    expect(card_of(page, "light")).to_contain_text("Confidence")
    # While another one may still refuse the picture, too.
    blind = card_of(page, "blind")
    expect(blind).to_contain_text("Shown when every model has answered")
    for route in held:
        route.continue_()
    expect(card_of(page, "heavy")).to_contain_text("Refused")
    expect(blind).to_contain_text("Not shown: see above")
    expect(page.locator("#models .flag")).to_contain_text("Models without a rule for it")
    expect(card_of(page, "light")).to_contain_text("Confidence")


def test_a_probability_is_told_from_the_threshold_beside_it(page: Page, service: str) -> None:
    answer = ask(service)
    point = {**answer["operating_points"][0], "positive": False}
    point |= {"probability": 0.0266, "threshold": 0.026644}
    answer["operating_points"] = [point]
    page.route("**/predict?*", lambda route: route.fulfill(json=answer))
    choose(page, upload())
    gauge = page.locator(".gauge")
    expect(gauge).to_contain_text("2.660%")
    expect(gauge).to_contain_text("below 2.664%")


def test_a_refused_image_shows_no_class_of_any_model(page: Page) -> None:
    choose(page, upload(content=GREEN))
    expect(page.locator("#answer .decision")).to_contain_text("No answer is given")
    expect(page.locator("#answer .decision")).to_contain_text("unlike the dermatoscopic images")
    page.get_by_role("button", name="All models").click()
    expect(page.locator(".agreement")).to_contain_text("unlike the training images")
    expect(page.locator(".card").filter(has_text="blind@1")).to_contain_text("Not shown")
    text = page.locator("#answer").inner_text() + page.locator("#models").inner_text()
    for name in ("Melanoma", "nevus", "Confidence", "%", "malignant", "benign"):
        assert name not in text


def test_a_format_that_browsers_cannot_show(page: Page) -> None:
    choose(page, upload("lesion.tif", tiff(), "image/tiff"))
    expect(page.locator(".heat-notes")).to_contain_text("cannot show the file itself")
    page.wait_for_function("() => document.querySelector('#look .plane img').naturalWidth === 320")
    with page.expect_response("**/predict?*"):
        page.get_by_label("Evidence for").select_option("mel")
    expect(page.locator("#look .legend")).to_contain_text("evidence for Melanoma")
    expect(page.locator("#look .plane")).to_be_visible()


def test_turned_and_mirrored(page: Page, service: str) -> None:
    page.locator("#tta").check()
    choose(page, upload())
    expect(page.locator("#answer")).to_contain_text("8 views have the same most probable class")
    expect(page.locator("#answer")).to_contain_text("no second opinion")
    spread = ask(service, tta="true")["uncertainty"]["standard_deviation"]
    largest = max(spread.values())
    shown = "< 0.1%" if largest < 0.001 else f"{largest:.1%}"
    expect(page.locator(".probabilities")).to_contain_text(f"± {shown}")


def test_two_images_of_one_lesion(page: Page, service: str) -> None:
    choose(page, upload("first.png"), upload("second.png", OTHER))
    page.get_by_role("button", name="Two images").click()
    rows = page.locator(".changes tbody tr")
    expect(rows).to_have_count(len(LABELS))
    one, two = (ask(service, image)["probabilities"] for image in (LESION, OTHER))
    assert max(abs(two[label] - one[label]) for label in LABELS) > 0.005
    for row, label in zip(rows.all_inner_texts(), LABELS, strict=True):
        before, after, change = row.split("\t")[-3:]
        assert float(before.rstrip("%")) == pytest.approx(100 * one[label], abs=0.11)
        assert float(after.rstrip("%")) == pytest.approx(100 * two[label], abs=0.11)
        assert float(change) == pytest.approx(100 * (two[label] - one[label]), abs=0.11)
    assert page.locator("#times label").all_inner_texts()[0].startswith("First")
    first, second = page.locator("#times .plane").all()
    page.locator("#times .viewport").first.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert first.evaluate("e => e.style.transform") == second.evaluate("e => e.style.transform")
    assert "scale(1.35)" in second.evaluate("e => e.style.transform")
    choose(page, upload("third.png", GREEN))
    page.locator("#times select").last.select_option("3")
    expect(page.locator("#times")).to_contain_text("nothing to compare")
    assert page.locator(".changes").count() == 0
    choose(page, upload("fourth.png", b"no picture"), upload("fifth.tif", tiff(), "image/tiff"))
    page.locator("#times select").last.select_option("4")
    expect(page.locator(".times-said").last).to_contain_text("No answer")
    expect(page.locator("#times")).to_contain_text("nothing to compare")
    page.locator("#times select").last.select_option("5")
    expect(page.locator(".times-said").last).to_contain_text("cannot show the file")


def test_an_answer_has_the_time_at_which_it_came(page: Page) -> None:
    page.clock.install(time="2026-03-04T10:00:00Z")
    choose(page, upload("first.png"), upload("second.png"))
    expect(page.locator("#progress")).to_contain_text("2 of 2 done")
    page.clock.fast_forward("05:30:00")
    page.get_by_role("button", name="second.png").click()
    time = page.locator(".origin dd").last
    expect(page.locator("#answer .answer-of")).to_contain_text("second.png")
    assert re.search(r"\b\d\d:0\d:\d\d", time.inner_text()), time.inner_text()


def test_a_newcomer_sees_the_committed_model_refuse_a_drawn_picture(
    open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "cnn_efficientnet_lite0").symlink_to(REPOSITORY / "models/cnn_efficientnet_lite0")
    with service_with(models_dir=tmp_path) as (address, _):
        page = open_page(address)
        page.get_by_role("button", name="Drawn picture 1").click()
        expect(page.locator("#answer .origin")).to_contain_text("cnn_efficientnet_lite0@")
        expect(page.locator("#answer .decision")).to_contain_text("No answer is given")
        expect(page.locator("#answer .decision")).to_contain_text("unlike the dermatoscopic images")
        expect(page.locator(".caption")).to_contain_text("drawn, no patient's")
        page.context.close()
