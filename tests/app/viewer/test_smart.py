"""A record launches the page: chart, images, answer, and the report in the record (ADR-0025)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect

from app.domain.notice import RESEARCH_USE_NOTICE
from tests.app.api.test_viewer import MAX_BYTES
from tests.app.viewer.conftest import LESION, OpenPage, choose, service_with, upload
from tests.app.viewer.records import CLIENT_ID, Records, as_base64, record_systems
from tests.conftest import REPOSITORY

DEFAULT_MODEL = "cnn_efficientnet_lite0"
PATIENT = {
    "name": [
        {"use": "nickname", "text": "Rike"},
        {"use": "official", "given": ["Erika", "Anna"], "family": "Mustermann"},
    ],
    "birthDate": "1964-08-12",
    "gender": "female",
    "identifier": [
        {"system": "urn:x", "value": "other"},
        {"type": {"coding": [{"code": "MR"}]}, "system": "urn:hospital", "value": "MRN-4711"},
    ],
}
STORED = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    with record_systems(tmp_path_factory.mktemp("records")) as systems:
        yield systems


@pytest.fixture(scope="module")
def service(records: Records, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with its committed default model, told to answer drawn lesions."""
    models = tmp_path_factory.mktemp("committed")
    (models / DEFAULT_MODEL).symlink_to(REPOSITORY / "models" / DEFAULT_MODEL)
    with service_with(
        models_dir=models,
        out_of_distribution_gate="advise",
        max_image_bytes=2_000_000,
        **records.settings,
    ) as (address, _):
        records.register(address)
        yield address


@pytest.fixture
def own_origins(service: str, records: Records) -> tuple[str, ...]:
    records.hostile.reset()
    return (service, *records.origins)


@pytest.fixture
def patient(records: Records) -> str:
    """A patient of the real record with two images and a photograph that is none."""
    patient = records.create("Patient", **PATIENT)
    subject = {"reference": patient}
    binary = records.create("Binary", contentType="image/png", data=as_base64(LESION))
    records.create(
        "Media",
        status="completed",
        subject=subject,
        createdDateTime="2026-01-02",
        content={"contentType": "image/png", "title": "Left arm", "data": as_base64(LESION)},
    )
    records.create(
        "DocumentReference",
        status="current",
        subject=subject,
        date="2026-03-04T10:00:00Z",
        content=[
            {"attachment": {"contentType": "application/pdf", "url": binary}},
            {"attachment": {"contentType": "image/png", "title": "Back", "url": binary}},
        ],
    )
    records.create(
        "ImagingStudy",
        status="available",
        subject=subject,
        started="2026-02-03",
        description="Dermoscopy of the leg",
    )
    return patient.removeprefix("Patient/")


def open_image(page: Page, title: str) -> None:
    page.locator(".chart-images").get_by_role("button", name=title).click()
    expect(page.locator("#answer .origin")).to_be_visible()


def reports(records: Records, patient: str) -> list[dict[str, Any]]:
    return records.find("DiagnosticReport", subject=f"Patient/{patient}")


def confirm(page: Page) -> None:
    page.get_by_role("button", name="Write into the record").click()
    page.locator("#write input").check()
    page.get_by_role("button", name="Write", exact=True).click()


def test_from_the_record_to_the_report(
    open_page: OpenPage,
    records: Records,
    service: str,
    patient: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    encounter = records.create(
        "Encounter",
        status="in-progress",
        **{"class": {"code": "AMB"}},
        subject={"reference": f"Patient/{patient}"},
    ).removeprefix("Encounter/")
    query = records.launch("handle-4711", patient=patient, encounter=encounter)
    page = open_page(query=query)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108
    banner = page.locator(".chart-banner")
    for fact in ("Erika Anna Mustermann", "1964-08-12", "female", "MRN-4711"):
        expect(banner).to_contain_text(fact)
    assert page.url == f"{service}/smart"
    lines = page.locator(".chart-image")
    expect(lines).to_have_text(
        [
            re.compile("Back.*DocumentReference 2026-03-04"),
            re.compile("Dermoscopy of the leg.*Not fetchable: the study does not say"),
            re.compile("Left arm.*Media 2026-01-02"),
        ]
    )
    for title in ("Back", "Left arm"):
        open_image(page, title)
    expect(page.locator(".case .badge-refer")).to_have_count(2)

    page.get_by_role("button", name="Write into the record").click()
    dialog = page.locator("#write")
    for words in (
        RESEARCH_USE_NOTICE,
        "preliminary",
        "Mustermann",
        "from this chart: Left arm, 2026-01-02",
    ):
        expect(dialog).to_contain_text(words)
    page.get_by_role("button", name="Write", exact=True).click()  # nothing was agreed to
    expect(dialog).to_be_visible()
    assert reports(records, patient) == []
    page.get_by_label("The image is this patient's").check()
    page.get_by_role("button", name="Write", exact=True).click()
    written = page.locator(".chart-report code")
    expect(written).to_have_text(re.compile("^DiagnosticReport/"))
    assert page.get_by_role("button", name="Write into the record").count() == 0

    (report,) = reports(records, patient)
    assert f"DiagnosticReport/{report['id']}" == written.inner_text()
    assert report["status"] == "preliminary"
    assert report["encounter"]["reference"] == f"Encounter/{encounter}"
    assert RESEARCH_USE_NOTICE in report["conclusion"]
    request_id = page.locator(".origin dd").nth(3).inner_text()
    assert f"{request_id}.report" in {one["value"] for one in report["identifier"]}
    (heatmap,) = (m for m in records.find("Media", subject=f"Patient/{patient}") if "device" in m)
    assert heatmap["content"]["title"].startswith("Heatmap")

    # Its own heatmap is no image of the chart; the other answer may still be written.
    page.get_by_role("button", name="Look again").click()
    expect(lines).to_have_count(3)
    page.locator(".case-open").first.click()
    expect(page.get_by_role("button", name="Write into the record")).to_be_visible()

    ours = [request for request in asked if request.url.startswith(service)]
    assert len([r for r in ours if "/predict?" in r.url]) == 3
    for request in ours:
        assert "authorization" not in request.headers
        assert patient not in request.url
        assert "Mustermann" not in f"{request.url} {request.headers}"
    assert page.evaluate(STORED) == '[{},{},""]'
    logged = " ".join(
        record.getMessage() + str(record.__dict__)
        for record in caplog.records
        # Not this test's client, nor the access log of its server, which the service has not.
        if not record.name.startswith(("httpx2", "httpcore2", "uvicorn.access"))
    )
    assert "app.access" in logged
    for secret in (patient, encounter, "Mustermann", "handle-4711", "Bearer"):
        assert secret not in logged


def test_without_a_launch_the_reader_chooses_the_record(
    open_page: OpenPage, records: Records, patient: str
) -> None:
    records.let_choose(patient=patient)
    page = open_page(query="smart/launch", ready="#launch button")
    with page.expect_request(f"{records.access}/authorize**") as authorized:
        page.get_by_role("button", name=records.fhir).click()
    for part in ("scope=launch%2Fpatient", "code_challenge_method=S256", f"client_id={CLIENT_ID}"):
        assert part in authorized.value.url
    assert "&launch=" not in authorized.value.url
    expect(page.locator(".chart-banner")).to_contain_text("Mustermann")
    open_image(page, "Left arm")


def test_another_issuer_is_refused_and_never_asked(open_page: OpenPage, service: str) -> None:
    page = open_page(query=f"smart/launch?iss={service}/fhir&launch=x", ready="#launch .decision")
    expect(page.locator("#launch")).to_contain_text(f"may not be launched from {service}/fhir")
    assert page.url == f"{service}/smart/launch"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"token_endpoint": "https://elsewhere.example/token"}, "https://elsewhere.example"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "has not: null"),
        ({"authorization_endpoint": "", "token_endpoint": ""}, "could not be asked"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not offer PKCE"),
    ],
)
def test_a_server_that_leads_elsewhere_is_not_followed(
    open_page: OpenPage, records: Records, said: dict[str, Any], words: str
) -> None:
    records.hostile.configuration = said
    query = records.launch("h", records.hostile.address, patient="p1")
    page = open_page(query=query, ready="#launch .decision")
    expect(page.locator("#launch")).to_contain_text(words)
    assert page.evaluate(STORED) == '[{},{},""]'


@pytest.mark.parametrize(
    "address",
    [
        "smart/launch?fhirServiceUrl={hostile}&patientId=p1",
        "smart/launch?launch=x",
        "smart?code=1&state=00000000000000000000000000000000",
        "smart?error=access_denied&error_description=call+0900",
        "smart",
    ],
)
def test_an_address_alone_opens_no_chart(
    open_page: OpenPage, records: Records, service: str, address: str
) -> None:
    query = address.format(hostile=records.hostile.address)
    page = open_page(query=query, ready="#launch button, .decision-failed")
    assert "0900" not in page.locator("body").inner_text()
    assert page.url == f"{service}/{query.partition('?')[0]}"
    assert records.hostile.received == []
    assert page.locator(".patient").count() == 0


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"denied": "no <b>licence</b>"}, "refused: no <b>licence</b>"),
        ({}, "named no patient"),
        ({"patient": "../Patient"}, "named no patient"),
        ({"patient": "nobody"}, "not in the record"),
    ],
)
def test_what_is_not_granted_is_said(
    open_page: OpenPage, records: Records, context: dict[str, str], words: str
) -> None:
    page = open_page(query=records.launch("h", **context))
    expect(page.locator(".chart-banner")).to_contain_text(words)
    expect(page.locator("#status")).to_contain_text(words)
    expect(page.locator(".chart-images")).to_be_hidden()
    assert page.evaluate(STORED) == '[{},{},""]'


def test_declined_nothing_is_written(open_page: OpenPage, records: Records, patient: str) -> None:
    page = open_page(query=records.launch("h", patient=patient))
    open_image(page, "Back")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    page.get_by_role("button", name="Write into the record").click()
    page.locator("#write input").check()
    page.get_by_role("button", name="Write nothing").click()
    page.get_by_role("button", name="Write into the record").click()
    page.keyboard.press("Escape")
    expect(page.locator("#write")).to_be_hidden()
    page.wait_for_load_state("networkidle")
    assert sent == []
    assert reports(records, patient) == []


def test_an_answer_that_got_lost_is_not_written_twice(
    open_page: OpenPage, records: Records, patient: str
) -> None:
    page = open_page(query=records.launch("h", patient=patient))
    open_image(page, "Left arm")
    posts: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        posts.append(route.request.url)
        route.fetch()
        route.abort()

    page.route(re.compile(f"^{re.escape(records.fhir)}/?$"), lose)
    confirm(page)
    expect(page.locator(".chart-report")).to_contain_text("It is not known whether it is in")
    title = page.locator(".chart-report h3").first
    expect(title).to_be_focused()
    assert len(reports(records, patient)) == 1
    page.get_by_role("button", name="Try again").click()
    page.locator("#write input").check()
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".chart-report code")).to_be_visible()
    expect(title).to_be_focused()
    expect(page.locator("#status")).to_contain_text("DiagnosticReport/")
    assert len(posts) == 1
    assert len(reports(records, patient)) == 1


def test_an_exchanged_model_is_noticed(
    open_page: OpenPage, records: Records, patient: str, service: str
) -> None:
    page = open_page(query=records.launch("h", patient=patient))

    def answer_as_before(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["model"]["digest"] = "0" * 64
        route.fulfill(response=answer, json=body)

    page.route(re.compile(r"/predict\?(?!.*format=fhir)"), answer_as_before)
    open_image(page, "Left arm")
    confirm(page)
    expect(page.locator(".chart-report")).to_contain_text("its model was exchanged")
    expect(page.locator(".chart-report")).to_contain_text("Nothing was written")
    assert reports(records, patient) == []


def test_images_from_elsewhere_are_called_so_and_drawn_ones_not_written(
    open_page: OpenPage, records: Records, patient: str
) -> None:
    page = open_page(query=records.launch("h", patient=patient))
    expect(page.locator(".chart-image")).to_have_count(3)
    choose(page, upload("Max Mustermann.png"))
    page.get_by_role("button", name="Write into the record").click()
    expect(page.locator("#write")).to_contain_text("not from this chart. Make sure")
    page.get_by_role("button", name="Write nothing").click()
    page.get_by_role("button", name="Remove all images").click()
    page.get_by_role("button", name="Drawn picture 2").click()
    expect(page.locator(".chart-report")).to_contain_text("is not written into a record")


def test_leaving_the_chart_forgets_it(
    open_page: OpenPage, records: Records, service: str, patient: str
) -> None:
    page = open_page(query=records.launch("h", patient=patient))
    open_image(page, "Left arm")
    page.get_by_role("button", name="Leave the chart").click()
    page.wait_for_url(f"{service}/")
    expect(page.locator("#welcome")).to_be_visible()
    assert page.locator(".chart-banner, .case").count() == 0
    page.go_back()
    assert "Mustermann" not in page.content()


def test_nothing_of_the_patient_waits_for_the_next_page(
    open_page: OpenPage, records: Records, service: str, patient: str
) -> None:
    page = open_page(query=records.launch("h", patient=patient))
    open_image(page, "Left arm")
    page.get_by_role("button", name="Write into the record").click()
    page.keyboard.press("Escape")
    page.evaluate(
        "() => addEventListener('pagehide', () => {"
        " sessionStorage.left = document.documentElement.outerHTML; })"
    )
    assert "Mustermann" in page.content()
    page.get_by_role("button", name="Leave the chart").click()
    page.wait_for_url(f"{service}/")
    left = page.evaluate("() => sessionStorage.left")
    assert "chart-banner" in left
    for word in ("Mustermann", "MRN-4711", "Left arm"):
        assert word not in left


def test_a_chart_whose_scripts_do_not_come_says_so(
    open_page: OpenPage, records: Records, patient: str
) -> None:
    page = open_page(ready="body")
    page.route("**/smart/patient.js", lambda route: route.abort())
    address = page.url.rstrip("/")
    page.goto(f"{address}/{records.launch('h', patient=patient)}")
    expect(page.locator("#troubles")).to_contain_text("chart could not be opened")
    assert page.evaluate("() => sessionStorage.length") == 0


def test_loading_again_needs_another_launch(
    open_page: OpenPage, records: Records, patient: str
) -> None:
    page = open_page(query=records.launch("h", patient=patient))
    expect(page.locator(".patient")).to_be_visible()
    page.reload()
    expect(page.locator(".chart-banner")).to_contain_text("loaded again")
    page.get_by_role("link", name="Open a record").click()
    expect(page.locator("#launch button")).to_have_count(2)


def test_german(open_page: OpenPage, records: Records, patient: str) -> None:
    page = open_page(query=records.launch("h", patient=patient), locale="de-DE")
    expect(page.locator(".chart-banner")).to_contain_text("Geboren")
    expect(page.locator(".chart-images")).to_contain_text("Bilder in der Akte")
    page.locator("#language").select_option("en")
    expect(page.locator(".chart-banner")).to_contain_text("Born")
    expect(page.locator(".chart-images")).to_contain_text("Images in the chart")


def test_the_plain_page_loads_nothing_of_it(open_page: OpenPage, service: str) -> None:
    page = open_page(ready="body")
    loaded: list[tuple[str, int]] = []
    page.on(
        "requestfinished",
        lambda request: loaded.append((request.url, request.sizes()["responseBodySize"])),
    )
    page.reload(wait_until="networkidle")
    assert len(loaded) > 20
    assert [url for url, _ in loaded if "smart" in url] == []
    assert sum(size for _, size in loaded) <= MAX_BYTES
