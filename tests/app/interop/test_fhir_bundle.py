"""The Bundle of an answer holds what the answer is, and withstands every check there is."""

import copy
import html
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from app.domain.decision import Action, Evidence, Gates, decide
from app.domain.labels import CLASSES, LABELS
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.quality import QualityIssue
from app.domain.uncertainty import Uncertainty
from app.interop.fhir_bundle import make_bundle
from app.interop.fhir_codes import CLASS_CONCEPTS
from app.interop.fhir_finding import Classified, Finding, ModelIdentity, Overlay
from app.interop.fhir_references import Context
from tests.fhir_checks import (
    assert_valid,
    broken_invariants,
    checked_invariants,
    dangling_references,
    definitions,
    model_errors,
    resources,
    validator_errors,
)
from tests.tiny_rules import tiny_point, tiny_rules

PROBABILITIES = np.array([0.01, 0.02, 0.07, 0.01, 0.77, 0.11, 0.01], np.float32)


def finding(*, novelty: float = 0.1, **changes: Any) -> Finding:
    """A melanoma with a heatmap, referred for its malignancy; rejected where it is novel."""
    decision = decide(
        Evidence(PROBABILITIES, novelty, 0.01, True), tiny_rules(), [tiny_point()], Gates()
    )
    rejected = decision.action is Action.REJECT
    values = Finding(
        request_id="request-1",
        given_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        upload_sha256="a" * 64,
        model=ModelIdentity("m", 3, "Model <M> & sons", "b" * 64, "openvino", (("n@1", "c" * 64),)),
        decision=decision,
        quality_issues=(QualityIssue.HAIR, QualityIssue.TOO_DARK),
        classified=None
        if rejected
        else Classified(
            CLASSES[4],
            0.77,
            True,
            dict(zip(LABELS, PROBABILITIES.tolist(), strict=True)),
            0.01,
            Uncertainty(np.full(7, 0.01, np.float32), 0.875),
        ),
        overlay=None
        if rejected
        else Overlay("image/jpeg", "aGVhdA==", 320, 240, "Heatmap", ("it is blank.",)),
        context=Context("Patient/1", "Encounter/2", "ImagingStudy/3", "ServiceRequest/4"),
    )
    return replace(values, **changes)


def observation(bundle: dict[str, Any], code: str) -> dict[str, Any]:
    (found,) = [
        resource
        for resource in resources(bundle, "Observation")
        if resource["code"]["coding"][0]["code"] == code
    ]
    return found


def test_a_referred_answer() -> None:
    given = finding()
    bundle = make_bundle(given)
    (report,) = resources(bundle, "DiagnosticReport")
    assert report["status"] == "preliminary"
    assert report["conclusion"].startswith("A specialist has to look at this picture.")
    assert "Melanoma" in report["conclusion"]
    assert RESEARCH_USE_NOTICE in report["conclusion"]
    assert "conclusionCode" not in report
    assert report["subject"] == {"reference": "Patient/1"}
    assert report["encounter"] == {"reference": "Encounter/2"}
    assert report["imagingStudy"] == [{"reference": "ImagingStudy/3"}]
    assert report["basedOn"] == [{"reference": "ServiceRequest/4"}]
    predicted = observation(bundle, "predicted-class")["valueCodeableConcept"]["coding"]
    assert [(c["system"], c["code"]) for c in predicted] == [
        ("urn:dermhybrid:class", "mel"),
        ("http://snomed.info/sct", "93655004"),
    ]
    components = observation(bundle, "class-probabilities")["component"]
    assert {
        c["code"]["coding"][0]["code"]: c["valueQuantity"]["value"] for c in components[:7]
    } == dict(zip(LABELS, PROBABILITIES.tolist(), strict=True))
    decision = observation(bundle, "decision")
    assert decision["valueCodeableConcept"]["coding"][0]["code"] == "refer"
    values = {
        c["valueCodeableConcept"]["coding"][0]["code"]
        for c in decision["component"]
        if "valueCodeableConcept" in c
    }
    assert values == {"poor-quality", "malignancy", "hair", "too-dark"}
    sets = {
        c["code"]["coding"][0]["code"]: c["valueString"]
        for c in decision["component"]
        if c["code"]["coding"][0]["code"].startswith("prediction-set")
    }
    assert sets == {
        "prediction-set-90": "mel",
        "prediction-set-95": "mel, nv (nothing is promised for df)",
    }
    (point,) = [c for c in decision["component"] if "interpretation" in c]
    assert point["interpretation"][0]["coding"][0]["code"] == "at-or-above"
    assert point["referenceRange"][0]["high"]["value"] == 0.3
    assert "no normal range" in point["referenceRange"][0]["type"]["text"]
    (media,) = resources(bundle, "Media")
    assert media["content"]["data"] == "aGVhdA=="
    assert (media["width"], media["height"]) == (320, 240)
    notice, warning = (note["text"] for note in media["note"])
    assert notice == RESEARCH_USE_NOTICE
    assert "blank" in warning
    assert RESEARCH_USE_NOTICE in html.unescape(media["text"]["div"])


def test_a_rejected_answer_has_no_class_and_no_number_of_one() -> None:
    bundle = make_bundle(finding(novelty=2.0))
    text = json.dumps(bundle)
    assert all(label.name not in text for label in CLASSES)
    assert "urn:dermhybrid:class" not in text
    assert "snomed" not in text
    assert "prediction-set" not in text
    assert not resources(bundle, "Media")
    predicted = observation(bundle, "predicted-class")
    assert "valueCodeableConcept" not in predicted
    assert predicted["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert "unlike the dermatoscopic images" in predicted["dataAbsentReason"]["text"]
    decision = observation(bundle, "decision")
    reasons = [c.get("valueCodeableConcept", c.get("valueQuantity")) for c in decision["component"]]
    assert reasons[0]["coding"][0]["code"] == "out-of-distribution"
    (report,) = resources(bundle, "DiagnosticReport")
    assert report["conclusion"].startswith("No answer is given for this picture.")
    assert len(report["result"]) == 2


def test_who_answered_and_of_what() -> None:
    bundle = make_bundle(finding())
    (device,) = resources(bundle, "Device")
    assert device["identifier"][0] == {"system": "urn:dermhybrid:model-sha256", "value": "b" * 64}
    assert device["version"] == [{"value": "3"}]
    assert device["property"][0]["valueCode"][0]["coding"][0]["code"] == "n@1"
    (provenance,) = resources(bundle, "Provenance")
    urls = {entry["resource"]["resourceType"]: entry["fullUrl"] for entry in bundle["entry"]}
    assert provenance["agent"][0]["who"]["reference"] == urls["Device"]
    assert provenance["entity"][0]["what"]["identifier"]["value"] == "a" * 64
    assert provenance["entity"][1]["what"] == {"reference": "ImagingStudy/3"}
    assert len(provenance["target"]) == 5


def test_what_the_model_asserts_is_labelled() -> None:
    for entry in make_bundle(finding())["entry"]:
        resource = entry["resource"]
        labels = [label["code"] for label in resource.get("meta", {}).get("security", [])]
        asserted = resource["resourceType"] in {"DiagnosticReport", "Observation", "Media"}
        assert labels == (["AIAST"] if asserted else [])


def test_only_a_code_of_the_whole_class_is_asserted() -> None:
    coded = {
        label: [c["code"] for c in concept["coding"][1:]]
        for label, concept in CLASS_CONCEPTS.items()
    }
    assert coded == {
        "akiec": [],
        "bcc": ["254701007"],
        "bkl": [],
        "df": [],
        "mel": ["93655004"],
        "nv": ["400096001"],
        "vasc": [],
    }


@pytest.mark.parametrize(
    "given",
    [
        finding(),
        finding(novelty=2.0),
        finding(novelty=float("nan")),
        finding(overlay=None, context=Context(), quality_issues=()),
    ],
    ids=["referred", "rejected", "no score", "nothing more than needed"],
)
def test_every_check_is_passed(given: Finding) -> None:
    assert_valid(make_bundle(given))


def test_published_codes_are_published() -> None:
    systems = {
        **definitions("valuesets"),
        **definitions("v3-codesystems"),
        **definitions("v2-tables"),
    }
    found = {
        (c["system"], c["code"], c["display"])
        for given in (finding(), finding(novelty=2.0))
        for c in _codings(make_bundle(given))
        # These definitions have no SNOMED CT, and are older than the label for what an AI asserts.
        if c["system"] in systems and c["system"].startswith("http://terminology.hl7.org/")
        if c["code"] != "AIAST"
    }
    assert len(found) == 6
    for system, code, display in found:
        assert (code, display) in set(_concepts(systems[system].get("concept", [])))


def _codings(value: Any) -> Any:
    if isinstance(value, dict):
        if {"system", "code", "display"} <= value.keys():
            yield value
        for child in value.values():
            yield from _codings(child)
    elif isinstance(value, list):
        for child in value:
            yield from _codings(child)


def _concepts(concepts: list[dict[str, Any]]) -> Any:
    for concept in concepts:
        yield concept["code"], concept.get("display")
        yield from _concepts(concept.get("concept", []))


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "request-2"},
        {"upload_sha256": "d" * 64},
        {"context": Context("Patient/2")},
        {"model": ModelIdentity("m", 3, "M", "e" * 64, "openvino")},
        {"frame": 2},
        {"overlay": None},
        {"overlay": Overlay("image/jpeg", "aGVhdA==", 320, 240, "Heatmap of nv", ())},
        {"overlay": Overlay("image/png", "aGVhdA==", 320, 240, "Heatmap", ())},
    ],
    ids=["request", "image", "patient", "model", "frame", "no map", "another map", "png"],
)
def test_only_a_repeated_request_is_the_same_answer(change: dict[str, Any]) -> None:
    later = finding(given_at=datetime(2026, 2, 1, tzinfo=UTC))
    assert _conditions(make_bundle(later)) == _conditions(make_bundle(finding()))
    mine = _conditions(make_bundle(finding(**change)))
    others = _conditions(make_bundle(finding()))
    assert not (mine & others) - {_device_condition(make_bundle(finding()))}


def test_the_symmetries_make_another_answer_of_it() -> None:
    asked = finding()
    assert asked.classified is not None
    assert asked.classified.uncertainty is not None
    unasked = replace(asked, classified=replace(asked.classified, uncertainty=None))
    assert asked.key != unasked.key


def test_nobody_is_told_that_a_disease_is_negative() -> None:
    decision = finding().decision
    below = [replace(result, positive=False) for result in decision.operating_points]
    assert below
    bundle = make_bundle(finding(decision=replace(decision, operating_points=tuple(below))))
    assert_valid(bundle)
    components = observation(bundle, "decision")["component"]
    (found,) = [c["interpretation"][0] for c in components if "interpretation" in c]
    assert found["text"] == "Below the threshold, which is not free of disease"
    assert [c["code"] for c in found["coding"]] == ["below"]
    assert "negative" not in json.dumps(bundle).lower()


@pytest.mark.parametrize("novelty", [0.1, 9.0], ids=["referred", "rejected"])
def test_the_frame_is_said_to_machines_and_to_people(novelty: float) -> None:
    bundle = make_bundle(finding(novelty=novelty, frame=3))
    assert_valid(bundle)
    assert _frames(bundle) == [3]
    (report,) = resources(bundle, "DiagnosticReport")
    assert "This is about frame 3 of the uploaded image." in report["conclusion"]
    assert report["conclusion"].endswith(RESEARCH_USE_NOTICE)
    (provenance,) = resources(bundle, "Provenance")
    assert provenance["entity"][0]["what"]["display"].endswith(": frame 3 of it")
    without = make_bundle(finding(novelty=novelty))
    assert _frames(without) == []
    assert "frame" not in json.dumps(without)


def _frames(bundle: dict[str, Any]) -> list[int]:
    components = observation(bundle, "decision")["component"]
    return [c["valueInteger"] for c in components if c["code"]["coding"][0]["code"] == "frame"]


def _conditions(bundle: dict[str, Any]) -> set[str]:
    return {entry["request"]["ifNoneExist"] for entry in bundle["entry"]}


def _device_condition(bundle: dict[str, Any]) -> str:
    return str(bundle["entry"][0]["request"]["ifNoneExist"])


# The checks themselves, on Bundles that are wrong.


def damaged(part: str, **changes: Any) -> dict[str, Any]:
    bundle = copy.deepcopy(make_bundle(finding()))
    observation(bundle, part).update(changes)
    return bundle


def test_models_refuse_a_wrong_structure() -> None:
    assert any("colour" in e for e in model_errors(damaged("decision", colour="red")))
    assert model_errors(damaged("decision", issued="yesterday"))


def test_the_validator_refuses_wrong_codes_and_elements() -> None:
    assert any("status" in e for e in validator_errors(damaged("decision", status="guessed")))
    assert any("colour" in e for e in validator_errors(damaged("decision", colour="red")))


def test_invariants_are_the_standards_and_are_evaluated() -> None:
    assert {"obs-3", "obs-6", "obs-7"} <= checked_invariants("Observation")
    assert {"bdl-1", "bdl-3", "bdl-7"} <= checked_invariants("Bundle")
    both = damaged("predicted-class", dataAbsentReason={"text": "none"})
    assert broken_invariants(both) == ["obs-6 at Observation"]
    code = CLASS_CONCEPTS["mel"]
    twice = damaged("class-probabilities", code=code, valueString="0.77")
    assert broken_invariants(twice) == ["obs-7 at Observation"]
    empty = damaged("decision", referenceRange=[{"age": {"low": {"value": 1}}}])
    assert broken_invariants(empty) == ["obs-3 at Observation.referenceRange"]
    collection = {**make_bundle(finding()), "type": "collection"}
    assert "bdl-3 at Bundle" in broken_invariants(collection)
    repeated = make_bundle(finding())
    repeated["entry"].append(repeated["entry"][0])
    assert "bdl-7 at Bundle" in broken_invariants(repeated)


def test_a_reference_into_the_void_is_found() -> None:
    bundle = make_bundle(finding())
    bundle["entry"].pop(0)
    assert dangling_references(bundle)
