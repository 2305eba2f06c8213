"""A record that means harm, or is broken, gets a sentence: no script, no leak, no endless wait."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Page, Request, Route, expect
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.app.viewer.conftest import LESION, OpenPage, service_with
from tests.app.viewer.records import CORS, Hostile, Records, as_base64, record_systems
from tests.app.viewer.test_access import RULES
from tests.app.viewer.test_safety import HOSTILE
from tests.programs import require_peer

Harm: TypeAlias = Callable[[Hostile], None]
ELSEWHERE = "https://elsewhere.example"
HIDDEN = "\u202egpj.exe"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    with record_systems(tmp_path_factory.mktemp("records")) as systems:
        yield systems


@pytest.fixture(scope="module")
def service(records: Records, viewer_models: Path) -> Iterator[str]:
    with service_with(
        models_dir=viewer_models,
        default_model="heavy",
        max_image_bytes=2_000_000,
        **records.settings,
    ) as (address, _):
        records.register(address)
        yield address


@pytest.fixture
def own_origins(service: str, records: Records) -> tuple[str, ...]:
    records.hostile.reset()
    # What Chromium reports of a redirect that it does not follow; that none is, its target says.
    return (service, *records.origins, records.elsewhere)


@pytest.fixture
def launched(open_page: OpenPage, records: Records) -> Iterator[Callable[..., Page]]:
    """Open the hostile record's only chart; in the end, that nobody was led elsewhere."""

    def launch(**options: Any) -> Page:
        query = records.launch("h", records.hostile.address, patient="p1")
        return open_page(query=query, **options)

    yield launch
    assert records.reached == []


def first_image(page: Page) -> None:
    page.locator("button.chart-image").first.click()


def test_markup_in_a_chart_is_text(launched: Callable[..., Page], records: Records) -> None:
    records.hostile.patient(
        {
            "name": [{"text": HOSTILE}],
            "birthDate": HOSTILE,
            "gender": HOSTILE,
            "identifier": [{"value": HOSTILE}],
        }
    )
    records.hostile.media(title=HOSTILE, data=as_base64(LESION))
    records.hostile.chart("ImagingStudy", {"description": HOSTILE, "started": HOSTILE})
    page = launched()
    expect(page.locator(".patient strong")).to_have_text(HOSTILE)
    expect(page.locator(".chart-image")).to_have_count(2)
    page.get_by_role("button", name=HOSTILE).click()
    expect(page.locator("#answer .origin")).to_be_visible()
    page.get_by_role("button", name="Write into the record").click()
    expect(page.locator("#write .patient strong")).to_have_text(HOSTILE)
    assert page.title() == "DermHybrid"
    assert page.locator("body img[src=x], body script").count() == 0


def _endless(hostile: Hostile) -> None:
    hostile.media(url="Binary/b")
    hostile.answers["/Binary/b"] = hostile.endless


def _inline(data: str) -> Harm:
    return lambda hostile: hostile.media(data=data)


def _linked(answer: Callable[[], Response]) -> Harm:
    def harm(hostile: Hostile) -> None:
        hostile.media(url="Binary/b")
        hostile.answers["/Binary/b"] = answer

    return harm


HARMS: dict[str, tuple[Harm, str]] = {
    "huge inline": (_inline("A" * 4_000_000), "more than 2 MB"),
    "huge by its size": (lambda h: h.media(url="Binary/b", size=10**12), "more than 2 MB"),
    "endless": (_endless, "more than 2 MB"),
    "no base64": (_inline("<svg onload=alert(1)>"), "no JPEG or PNG"),
    "html": (
        _linked(lambda: Response(HOSTILE, media_type="image/png", headers=CORS)),
        "no JPEG or PNG",
    ),
    "svg": (
        _inline(as_base64(b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")),
        "no JPEG or PNG",
    ),
    "no content": (lambda h: h.media(), "no bytes of it"),
    "wrong resource": (
        _linked(lambda: JSONResponse({"resourceType": "Patient", "data": "AAAA"}, headers=CORS)),
        "no bytes of it",
    ),
    "redirect": (
        lambda h: _linked(lambda: RedirectResponse(h.leads_to, headers=CORS))(h),
        "pointed to another address",
    ),
    "elsewhere": (lambda h: h.media(url=f"{ELSEWHERE}/a.png"), ELSEWHERE),
    "script address": (lambda h: h.media(url="javascript:alert(1)"), "Not fetchable"),
    "its own origin, outside": (lambda h: h.media(url="//elsewhere.example/a.png"), "elsewhere"),
    "refused": (_linked(lambda: Response(status_code=403, headers=CORS)), "does not allow this"),
    "ended": (_linked(lambda: Response(status_code=401, headers=CORS)), "Access has ended"),
    "no CORS": (_linked(lambda: Response(LESION, media_type="image/png")), "could not be reached"),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_harmful_image(launched: Callable[..., Page], records: Records, name: str) -> None:
    harm, words = HARMS[name]
    harm(records.hostile)
    page = launched()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108
    first_image(page)
    expect(page.locator(".chart-images [role=alert]")).to_contain_text(words)
    assert page.locator(".case").count() == 0
    assert records.hostile.sent < 50_000_000
    assert [request.url for request in asked if "/predict" in request.url] == []
    assert not any(request.url.startswith(ELSEWHERE) for request in asked)


def test_an_answer_that_does_not_come(launched: Callable[..., Page], records: Records) -> None:
    records.hostile.media(url="Binary/b")
    records.hostile.answers["/Binary/b"] = records.hostile.silent
    page = launched()
    expect(page.locator("button.chart-image")).to_be_visible()
    page.clock.install()
    first_image(page)
    expect(page.locator(".chart-images")).to_contain_text("Fetching")
    page.clock.fast_forward(25_000)
    expect(page.locator(".chart-images [role=alert]")).to_contain_text("did not answer in time")


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("Patient/p1", {"resourceType": "Patient", "id": "p2"}, "another patient"),
        ("Patient/p1", ["Patient"], "cannot be read"),
    ],
)
def test_another_patient_is_not_shown(
    launched: Callable[..., Page], records: Records, path: str, content: Any, words: str
) -> None:
    records.hostile.resource(path, content)
    page = launched()
    expect(page.locator(".chart-banner")).to_contain_text(words)
    assert page.locator(".patient, button.chart-image").count() == 0


def test_a_chart_of_nonsense(launched: Callable[..., Page], records: Records) -> None:
    hostile = records.hostile
    hostile.patient({"name": "Erika", "identifier": [None, 1], "birthDate": {}, "gender": []})
    hostile.resource("Media", {"resourceType": "Bundle", "entry": [None, 1, {"resource": "x"}]})
    hostile.resource("DocumentReference", {"resourceType": "OperationOutcome"})
    study = {
        "identifier": [{"value": "urn:oid:1.2.3"}],
        "series": [{"uid": "1.2", "instance": [{"uid": "1"}]}],
    }
    hostile.chart(
        "ImagingStudy",
        {**study, "endpoint": [{"reference": f"{ELSEWHERE}/Endpoint/1"}]},
        {**study, "endpoint": [{"reference": "#e"}], "contained": [wado(f"{ELSEWHERE}/wado")]},
        {**study, "series": [None, {"uid": "../..", "instance": [{"uid": "../x"}]}]},
        {"series": 7},
    )
    hostile.chart("Media", *({"content": {"contentType": "image/png"}} for _ in range(500)))
    page = launched()
    expect(page.locator(".patient strong")).to_have_text("No name in the record")
    images = page.locator(".chart-images")
    expect(images).to_contain_text("DocumentReference could not be looked through")
    expect(page.locator(".chart-image")).to_have_count(54)
    expect(images.get_by_text(ELSEWHERE)).to_have_count(2)
    expect(images.get_by_text("does not say which images")).to_have_count(2)


def test_images_of_another_patient_are_not_shown(
    launched: Callable[..., Page], records: Records
) -> None:
    of = {
        "own": "Patient/p1",
        "own, by address": f"{records.hostile.address}/Patient/p1",
        "own, of a version": "Patient/p1/_history/2",
        "another's": "Patient/p2",
        "a longer id's": "Patient/p11",
        "from elsewhere": f"{ELSEWHERE}/Patient/p1",
    }
    image = {"contentType": "image/png", "data": as_base64(LESION)}
    found = [
        {"content": {**image, "title": title}, "subject": {"reference": reference}}
        for title, reference in of.items()
    ]
    records.hostile.chart(
        "Media", *found, {"content": {**image, "title": "no one's"}, "subject": None}
    )
    page = launched()
    expect(page.locator(".chart-images")).to_contain_text("Some of Media that the record system")
    titles = page.locator(".chart-image .chart-image-title").all_text_contents()
    assert sorted(titles) == sorted(title for title in of if title.startswith("own"))


def test_what_was_withdrawn_is_not_offered(launched: Callable[..., Page], records: Records) -> None:
    image = {"contentType": "image/png", "data": as_base64(LESION)}
    statuses = ("completed", "entered-in-error", "not-done")
    records.hostile.chart(
        "Media", *({"content": {**image, "title": s}, "status": s} for s in statuses)
    )
    documents = (("current", "final"), ("superseded", "final"), ("current", "entered-in-error"))
    records.hostile.chart(
        "DocumentReference",
        *(
            {"content": [{"attachment": {**image, "title": s}}], "status": s, "docStatus": doc}
            for s, doc in documents
        ),
    )
    page = launched()
    images = page.locator(".chart-images")
    expect(images).to_contain_text("Some of Media are marked in the record as entered in error")
    expect(images).to_contain_text("Some of DocumentReference are marked")
    titles = page.locator(".chart-image .chart-image-title").all_text_contents()
    assert sorted(titles) == ["completed", "current"]


def test_an_image_that_comes_late_does_not_take_the_desk(
    launched: Callable[..., Page], records: Records
) -> None:
    late, early, other = (
        {"contentType": "image/png", "title": title, **content}
        for title, content in (
            ("Late", {"url": "Binary/late"}),
            ("Early", {"data": as_base64(LESION)}),
            ("Other", {"data": as_base64(LESION)}),
        )
    )
    records.hostile.chart("Media", *({"content": one} for one in (late, early, other)))
    page = launched()
    held: list[Route] = []
    # Playwright marks a function that it is given, which a bound `append` does not allow.
    page.route("**/Binary/late", lambda route: held.extend([route]))
    images = page.locator(".chart-images")
    for title in ("Late", "Early", "Other"):
        images.get_by_role("button", name=title).click()
        if title != "Late":
            expect(page.locator("#answer .answer-of")).to_contain_text(title)
    held[0].fulfill(body=LESION, content_type="image/png", headers=CORS)
    expect(page.locator(".case")).to_have_count(3)
    expect(page.locator("#answer .answer-of")).to_contain_text("Other")
    images.get_by_role("button", name="Late").click()
    expect(page.locator("#answer .answer-of")).to_contain_text("Late")


def test_the_last_one_asked_for_is_shown_whatever_comes_first(
    launched: Callable[..., Page], records: Records
) -> None:
    names = ("first", "second")
    records.hostile.chart(
        "Media",
        *(
            {"content": {"contentType": "image/png", "title": n, "url": f"Binary/{n}"}}
            for n in names
        ),
    )
    page = launched()
    held: dict[str, Route] = {}
    page.route("**/Binary/*", lambda route: held.update({route.request.url[-5:]: route}))
    for name in names:
        page.locator(".chart-images").get_by_role("button", name=name).click()
    for number, name in enumerate(names, start=1):
        held[name[-5:]].fulfill(body=LESION, content_type="image/png", headers=CORS)
        expect(page.locator(".case")).to_have_count(number)
    expect(page.locator("#answer .answer-of")).to_contain_text("second")


def test_a_contained_endpoint_is_its_own_studys(
    launched: Callable[..., Page], records: Records
) -> None:
    study = {
        "identifier": [{"value": "urn:oid:1.2.3"}],
        "series": [{"uid": "1.2", "instance": [{"uid": "1"}]}],
        "endpoint": [{"reference": "#e"}],
    }
    own = f"{records.hostile.address}/wado"
    records.hostile.chart(
        "ImagingStudy",
        *({**study, "contained": [wado(address)]} for address in (f"{ELSEWHERE}/wado", own)),
    )
    page = launched()
    expect(page.locator("button.chart-image")).to_have_count(1)
    expect(page.locator(".chart-images").get_by_text(ELSEWHERE)).to_have_count(1)
    first_image(page)
    expect(page.locator(".chart-images [role=alert]")).to_be_visible()
    rendered = "/wado/studies/1.2.3/series/1.2/instances/1/rendered"
    assert f"GET {rendered}" in records.hostile.received


def test_no_more_than_fifty_endpoints_are_asked(
    launched: Callable[..., Page], records: Records
) -> None:
    study = {
        "identifier": [{"value": "urn:oid:1.2.3"}],
        "series": [{"uid": "1.2", "instance": [{"uid": "1"}]}],
    }
    named = [{"reference": f"Endpoint/{number}"} for number in range(51)]
    for number in range(51):
        records.hostile.resource(f"Endpoint/{number}", wado(f"{ELSEWHERE}/wado"))
    records.hostile.chart(
        "ImagingStudy", *({**study, "endpoint": some} for some in (named[:50], named[50:]))
    )
    images = launched().locator(".chart-images")
    expect(images.get_by_text(ELSEWHERE)).to_have_count(1)
    expect(images.get_by_text("more than 50 servers")).to_have_count(1)
    asked = {line for line in records.hostile.received if line.startswith("GET /Endpoint/")}
    assert asked == {f"GET /{endpoint['reference']}" for endpoint in named[:50]}


def test_the_report_of_another_answer_does_not_count_as_written(
    launched: Callable[..., Page], records: Records
) -> None:
    records.hostile.media(data=as_base64(LESION))
    records.hostile.answers["/"] = lambda: Response(HOSTILE, headers=CORS)
    other = {"system": "urn:dermhybrid:answer", "value": "another"}
    records.hostile.chart("DiagnosticReport", {"identifier": [other]})
    page = launched()
    first_image(page)
    for times, name in ((1, "Write into the record"), (2, "Try again")):
        page.get_by_role("button", name=name).click()
        page.locator("#write input").check()
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator(".chart-report .state")).to_have_count(0)
        expect(page.locator(".chart-report [role=alert]")).to_contain_text("It is not known")
        assert records.hostile.received.count("POST /") == times
    assert page.locator(".chart-report code").count() == 0


def wado(address: str) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint",
        "id": "e",
        "connectionType": {"code": "dicom-wado-rs"},
        "address": address,
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: JSONResponse({"resourceType": "Bundle"}, headers=CORS), "did not say that it has"),
        (lambda: Response(status_code=422, headers=CORS), "status 422"),
        (None, "another address"),
        (lambda: Response(HOSTILE, headers=CORS), "cannot be read"),
    ],
)
def test_a_report_that_is_not_taken(
    launched: Callable[..., Page], records: Records, answer: Any, words: str
) -> None:
    records.hostile.media(data=as_base64(LESION))
    records.hostile.answers["/"] = answer or (
        lambda: RedirectResponse(records.elsewhere, status_code=307, headers=CORS)
    )
    page = launched()
    first_image(page)
    page.get_by_role("button", name="Write into the record").click()
    page.locator("#write input").check()
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".chart-report [role=alert]")).to_contain_text(words)
    known = "Nothing was written" if "422" in words else "It is not known"
    expect(page.locator(".chart-report [role=alert]")).to_contain_text(known)
    assert page.locator(".chart-report code").count() == 0
    assert records.hostile.received.count("POST /") == 1


def _choice(page: Page) -> None:
    expect(page.locator("#launch button")).to_have_count(2)


def _open(page: Page) -> None:
    expect(page.locator(".chart-image")).to_have_count(3)
    page.locator("button.chart-image").nth(1).click()
    expect(page.locator(".chart-images [role=alert]")).to_be_visible()
    first_image(page)
    expect(page.locator("#answer .origin")).to_be_visible()


def _asked(page: Page) -> None:
    _open(page)
    page.get_by_role("button", name="Write into the record").click()
    expect(page.locator("#write")).to_be_visible()


def _not_written(page: Page) -> None:
    _asked(page)
    page.locator("#write input").check()
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".chart-report [role=alert]")).to_be_visible()


def _not_open(page: Page) -> None:
    _open(page)
    page.reload()
    expect(page.locator(".chart-banner .decision-failed")).to_be_visible()


@pytest.mark.parametrize(
    "arrange",
    [_choice, _open, _asked, _not_written, _not_open],
    ids=lambda state: state.__name__.strip("_"),
)
def test_axe_finds_nothing(
    open_page: OpenPage, launched: Callable[..., Page], records: Records, arrange: Any
) -> None:
    axe = require_peer("axe-core/axe.min.js").read_text(encoding="utf-8")
    records.hostile.patient({"name": [{"text": "Erika Mustermann"}], "gender": "female"})
    records.hostile.answers["/"] = lambda: Response(status_code=422, headers=CORS)
    records.hostile.chart(
        "Media",
        {"content": {"contentType": "image/png", "title": "Arm", "data": as_base64(LESION)}},
        {"content": {"contentType": "image/png", "title": HIDDEN, "data": "AAAA"}},
    )
    records.hostile.chart("ImagingStudy", {"description": "Dermoscopy"})
    isfirst = arrange is _choice
    page = open_page(query="smart/launch", ready="#launch button") if isfirst else launched()
    arrange(page)
    page.evaluate(axe)
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        found = page.evaluate("rules => axe.run({ runOnly: rules })", RULES)
        assert len(found["passes"]) > 12
        violations = [
            (violation["id"], [node["html"] for node in violation["nodes"]])
            for violation in found["violations"]
        ]
        assert violations == [], theme


@pytest.mark.parametrize("width", [320, 1440])
def test_nothing_is_cut_off(launched: Callable[..., Page], records: Records, width: int) -> None:
    records.hostile.patient({"name": [{"text": "M" * 150}], "identifier": [{"value": "9" * 64}]})
    records.hostile.media(title="W" * 200, data=as_base64(LESION))
    page = launched(viewport={"width": width, "height": 900})
    first_image(page)
    expect(page.locator("#answer .origin")).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
