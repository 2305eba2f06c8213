"""The FHIR Parameters that `$classify-lesion` takes: hostile until they are read."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.domain.errors import FhirParametersError
from app.interop.fhir_references import REFERENCE_PATTERNS, Context

MAX_STRUCTURE: Final = 1000
"""Commas and brackets. A picture has none in base64, and what stands beside it is small; without a
bound, a body of brackets alone would become gigabytes of objects."""

REFERENCE_TYPES: Final = {
    "subject": "Patient",
    "encounter": "Encounter",
    "imagingStudy": "ImagingStudy",
    "basedOn": "ServiceRequest",
}
"""By the parameter's name."""
VALUE_TYPES: Final = {
    "image": "valueAttachment",
    **dict.fromkeys(REFERENCE_TYPES, "valueReference"),
    "model": "valueString",
    "heatmap": "valueBoolean",
    "store": "valueBoolean",
}
"""By the parameter's name; only `image` is needed, and none may be there twice."""


class _Element(BaseModel):
    """FHIR's other elements (`id`, `extension`, ...) say nothing that is needed here."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Attachment(_Element):
    content_type: Annotated[str, Field(alias="contentType", max_length=100)]
    data: str | None = None


class _Reference(_Element):
    reference: str


class _Parameter(_Element):
    name: Literal[
        "image", "subject", "encounter", "imagingStudy", "basedOn", "model", "heatmap", "store"
    ]
    attachment: Annotated[_Attachment | None, Field(alias="valueAttachment")] = None
    reference: Annotated[_Reference | None, Field(alias="valueReference")] = None
    string: Annotated[str | None, Field(alias="valueString", max_length=80)] = None
    boolean: Annotated[bool | None, Field(alias="valueBoolean")] = None


class _Parameters(_Element):
    resource_type: Annotated[Literal["Parameters"], Field(alias="resourceType")]
    parameter: Annotated[list[_Parameter], Field(max_length=len(VALUE_TYPES))]


@dataclass(frozen=True, slots=True)
class LesionQuery:
    """What `$classify-lesion` is asked.

    Attributes:
        image: The file's bytes, of any origin.
        context: What the image belongs to.
        model: `name` or `name@version`; None for the default.
        heatmap: Draw one.
        store: Store the answer on the FHIR server.
    """

    image: bytes
    context: Context
    model: str | None
    heatmap: bool
    store: bool


def read_parameters(body: bytes) -> LesionQuery:
    """Read the body of a request; blocks the calling thread.

    Args:
        body: Of any origin, but not longer than an image in base64 needs.

    Raises:
        FhirParametersError: It is not what the operation takes. No value is repeated in the
            message: it may be about a patient.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_STRUCTURE:
        raise FhirParametersError(
            f"Expected Parameters with an image, received more than {MAX_STRUCTURE} JSON elements."
        )
    try:
        found = _Parameters.model_validate_json(body).parameter
    except ValidationError as error:
        details = (
            f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()
        )
        raise FhirParametersError("; ".join(details)) from None
    by_name = {parameter.name: parameter for parameter in found}
    if len(by_name) < len(found):
        raise FhirParametersError("Expected each parameter once, received one of them twice.")
    for name, parameter in by_name.items():
        _check_value(name, parameter)
    references = {
        name: _reference(kind, name, by_name[name]) if name in by_name else None
        for name, kind in REFERENCE_TYPES.items()
    }
    model, heatmap, store = (by_name.get(name) for name in ("model", "heatmap", "store"))
    return LesionQuery(
        image=_image(by_name.get("image")),
        context=Context(
            references["subject"],
            references["encounter"],
            references["imagingStudy"],
            references["basedOn"],
        ),
        model=model.string if model else None,
        heatmap=heatmap is None or bool(heatmap.boolean),
        store=store is not None and bool(store.boolean),
    )


def _check_value(name: str, parameter: _Parameter) -> None:
    values = {
        f"value{kind.capitalize()}"
        for kind, value in parameter
        if value is not None and kind != "name"
    }
    if values != {VALUE_TYPES[name]}:
        raise FhirParametersError(f"{name}: expected {VALUE_TYPES[name]} and no other value.")


def _reference(kind: str, name: str, parameter: _Parameter) -> str:
    given = parameter.reference.reference if parameter.reference else ""
    if not re.fullmatch(REFERENCE_PATTERNS[kind], given):
        raise FhirParametersError(
            f"{name}: expected a relative literal reference, as {kind}/123 is one."
        )
    return given


def _image(parameter: _Parameter | None) -> bytes:
    attachment = None if parameter is None else parameter.attachment
    if attachment is None or not attachment.data:
        raise FhirParametersError(
            "image: expected a valueAttachment with contentType and data. Send the picture itself: "
            "a URL is not fetched."
        )
    if not attachment.content_type.lower().startswith("image/"):
        raise FhirParametersError("image: expected a contentType of image/*.")
    try:
        # The standard allows white space.
        data = attachment.data.encode("ascii").translate(None, b" \t\r\n")
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise FhirParametersError("image: its data is not base64.") from None
