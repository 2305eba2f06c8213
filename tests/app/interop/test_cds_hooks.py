"""A card is about this patient's newest answer of this service, and nothing else gets into it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.notice import RESEARCH_USE_NOTICE
from app.interop.cds_hooks import make_card, newest_answer
from app.interop.fhir_bundle import make_bundle
from app.interop.fhir_references import Context
from tests.app.interop.test_fhir_bundle import finding
from tests.fhir_checks import resources


def report(day: int = 2, patient: str = "1", **changes: Any) -> dict[str, Any]:
    given = finding(
        given_at=datetime(2026, 1, day, tzinfo=UTC),
        context=Context(f"Patient/{patient}"),
        novelty=2.0 if changes.pop("rejected", False) else 0.1,
    )
    (made,) = resources(make_bundle(given), "DiagnosticReport")
    return {**made, **changes}


def card(*reports: Any, viewer: str | None = None) -> dict[str, Any]:
    found = newest_answer(reports, "1")
    assert found is not None
    only = make_card(found, viewer)
    assert len(only["summary"]) < 140
    assert only["indicator"] in {"info", "warning"}
    assert only["source"]["label"]
    assert RESEARCH_USE_NOTICE in only["detail"]
    return dict(only)


def test_the_newest_answer_is_shown() -> None:
    shown = card(report(2), report(9, rejected=True), report(5))
    assert "could not be answered" in shown["summary"]
    assert shown["summary"].endswith("(2026-01-09)")
    assert shown["indicator"] == "warning"
    assert "No answer is given for this picture." in shown["detail"]
    assert "links" not in shown


def test_a_referred_answer_asks_for_a_specialist() -> None:
    shown = card(report(), viewer="https://derm.hospital.example/")
    assert "a specialist has to look" in shown["summary"]
    assert shown["indicator"] == "warning"
    assert "Melanoma" in shown["detail"]
    (link,) = shown["links"]
    assert link["url"] == "https://derm.hospital.example/"
    assert link["type"] == "absolute"


@pytest.mark.parametrize(
    "other",
    [
        None,
        [],
        "text",
        {},
        {"resourceType": "Patient"},
        report(patient="2"),
        report(patient="11"),
        report(subject=None),
        report(subject={"reference": ["Patient/1"]}),
        report(code={"coding": [{"system": "http://loinc.org", "code": "lesion-classification"}]}),
        report(code={"coding": "lesion-classification"}),
        report(meta={}),
        report(meta={"tag": [{"system": "urn:dermhybrid:decision", "code": "guess"}]}),
        report(status=[]),
        report(status={}),
        report(issued="yesterday"),
        report(issued=None),
    ],
)
def test_what_is_no_answer_about_this_patient_is_passed_over(other: Any) -> None:
    assert newest_answer([other], "1") is None


def test_an_answers_name_is_this_services_or_none() -> None:
    found = newest_answer([report()], "1")
    assert found is not None
    assert found.name == report()["identifier"][0]["value"]
    system = "urn:dermhybrid:answer"
    others: list[Any] = [
        None,
        "x",
        ["x"],
        [{"system": system}],
        [{"system": system, "value": "Zzyzx"}],
        [{"system": "urn:mrn", "value": found.name}],
    ]
    for identifier in others:
        unnamed = newest_answer([report(identifier=identifier)], "1")
        assert unnamed is not None
        assert unnamed.name is None


def test_a_conclusion_stays_text() -> None:
    conclusion = (
        "![x](http://evil/) <script> [a](b) **bold** `c` HTTPS://evil.example www.evil.example"
        "\n\n# head _u_"
    )
    shown = card(report(conclusion=conclusion))
    detail = shown["detail"].split("\n\n")[0]
    assert "\\!\\[x\\](http: //evil/)" in detail
    assert "HTTPS: //evil.example www .evil.example" in detail
    assert "\\_u\\_" in detail
    assert "\\<script\\>" in detail
    assert "\\*\\*bold\\*\\*" in detail
    assert "\\# head" in detail


def test_a_newer_answer_does_not_hide_that_an_older_one_was_referred() -> None:
    reported = report(9, meta={"tag": [{"system": "urn:dermhybrid:decision", "code": "report"}]})
    alone = card(reported)
    assert (alone["indicator"], "older" in alone["summary"]) == ("info", False)
    shown = card(report(2), reported, report(5), report(7, rejected=True))
    assert "of older ones 2 to be referred (2026-01-09)" in shown["summary"]
    assert shown["indicator"] == "warning"
    assert "this one replaces none of them" in shown["detail"]
    assert "of older ones 1 " in card(report(2), report(5))["summary"]


def test_dates_without_a_zone_compare_too() -> None:
    shown = card(report(issued="2026-01-03T00:00:00"), report(2))
    assert "2026-01-03" in shown["summary"]
