"""Parameters come from outside: they are read strictly, and no value of theirs is repeated."""

import base64
import json
import tracemalloc
from typing import Any

import pytest

from app.domain.errors import FhirParametersError
from app.interop.fhir_parameters import MAX_STRUCTURE, LesionQuery, read_parameters
from app.interop.fhir_references import Context

IMAGE = {
    "name": "image",
    "valueAttachment": {"contentType": "image/png", "data": base64.b64encode(b"pixels").decode()},
}


def reference(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "valueReference": {"reference": value}}


def parameters(*given: dict[str, Any], **others: Any) -> bytes:
    return json.dumps({"resourceType": "Parameters", "parameter": [*given], **others}).encode()


def test_everything_that_can_be_said() -> None:
    body = parameters(
        IMAGE,
        reference("subject", "Patient/1"),
        reference("encounter", "Encounter/2"),
        reference("imagingStudy", "ImagingStudy/3"),
        reference("basedOn", "ServiceRequest/4"),
        {"name": "model", "valueString": "light@1", "id": "x"},
        {"name": "heatmap", "valueBoolean": False},
        {"name": "store", "valueBoolean": True},
        id="mine",
    )
    context = Context("Patient/1", "Encounter/2", "ImagingStudy/3", "ServiceRequest/4")
    assert read_parameters(body) == LesionQuery(b"pixels", context, "light@1", False, True)


def test_an_image_is_enough() -> None:
    assert read_parameters(parameters(IMAGE)) == LesionQuery(
        b"pixels", Context(), None, True, False
    )


def test_base64_may_have_white_space() -> None:
    lines = {"contentType": "image/png", "data": " cGl4\r\n\tZWxz\n"}
    assert read_parameters(parameters({**IMAGE, "valueAttachment": lines})).image == b"pixels"


def test_white_space_between_all_characters_takes_little_memory() -> None:
    # Split at its white space, it was a string of each character: 60 times the body.
    data = " ".join(base64.b64encode(b"p" * 300_000).decode())
    body = parameters({**IMAGE, "valueAttachment": {"contentType": "image/png", "data": data}})
    tracemalloc.start()
    try:
        assert len(read_parameters(body).image) == 300_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(body)


def attachment(**content: Any) -> bytes:
    return parameters({"name": "image", "valueAttachment": content})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'{"resourceType": "Parameters", "parameter": [' + b"[" * 900, "JSON"),
        (b"{}", "resourceType"),
        (parameters(resourceType="Patient"), "Parameters"),
        (parameters(), "image: expected"),
        (parameters(parameter="image"), "array"),
        (parameters(IMAGE, IMAGE), "twice"),
        (parameters(*[IMAGE] * 9), "at most 8"),
        (parameters({"name": "Zzyzx", "valueString": "Quux"}), "parameter.0.name"),
        (parameters({**IMAGE, "name": "subject"}), "subject: expected valueReference"),
        (parameters({"name": "image"}), "image: expected valueAttachment"),
        (parameters({"name": "image", "valueString": "Zzyzx"}), "image: expected valueAttachment"),
        (parameters(IMAGE, {"name": "model", "valueString": "Zzyzx" * 20}), "80 characters"),
        (parameters(IMAGE, {"name": "heatmap", "valueBoolean": "Zzyzx"}), "boolean"),
        (attachment(contentType="image/png"), "is not fetched"),
        (attachment(contentType="image/png", url="http://169.254.169.254/"), "is not fetched"),
        (attachment(contentType="image/png", data="Zzyzx!"), "not base64"),
        (attachment(contentType="image/png", data="abc"), "not base64"),
        (attachment(contentType="image/png", data="ääää"), "not base64"),
        (attachment(contentType="text/plain", data="abcd"), "image/"),
        (attachment(data="abcd"), "contentType"),
        (parameters(IMAGE, reference("subject", "Encounter/Zzyzx")), "Patient/123"),
        (parameters(IMAGE, reference("subject", "Patient/Zzyzx Quux")), "Patient/123"),
        (parameters(IMAGE, reference("subject", "Patient/1\n")), "Patient/123"),
        (parameters(IMAGE, reference("subject", "http://Zzyzx/Patient/1")), "Patient/123"),
    ],
)
def test_anything_else_is_refused_and_not_repeated(body: bytes, expected: str) -> None:
    with pytest.raises(FhirParametersError, match=expected) as refused:
        read_parameters(body)
    assert "Zzyzx" not in str(refused.value)
    assert "Quux" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("filling", [b"[],", b"{},", b"1,"])
def test_a_body_of_many_elements_is_refused_before_it_is_parsed(filling: bytes) -> None:
    body = b'{"resourceType": "Parameters", "parameter": [], "x": ['
    body += filling * (MAX_STRUCTURE + 1) + b"not even JSON"
    with pytest.raises(FhirParametersError, match=f"more than {MAX_STRUCTURE} JSON elements"):
        read_parameters(body)
