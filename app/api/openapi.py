"""Mend what FastAPI writes about answers: all failures are problem details, lines are JSON."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from app.api.errors import PROBLEM_MEDIA_TYPE
from app.api.fhir_answers import FHIR_PREFIX
from app.interop.fhir_codes import FHIR_MEDIA_TYPE

_REFUSALS: Final = {
    "401": "There is no valid credential.",
    "403": "The credential lacks the scope.",
    "429": "The caller has asked for more than its share; `Retry-After` says when to come back.",
    "503": "The credential cannot be checked at present.",
}
"""Of what is not public; a route's own words count before these."""
_LATE: Final = {
    "422": "The header `X-Request-Timeout` is no number of seconds that is accepted.",
    "504": "No answer within the request's time.",
}
"""Of everything."""

_PROBLEM: Final = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_OUTCOME: Final = {
    FHIR_MEDIA_TYPE: {"schema": {"type": "object", "description": "A FHIR R4 OperationOutcome."}}
}


def describe_problems(app: FastAPI) -> None:
    """Let an application's OpenAPI document give failures their real media type and schema."""
    generate = app.openapi

    @cache  # anybody may ask for it
    def openapi() -> dict[str, Any]:
        document = deepcopy(generate())  # parts of it belong to routes, and to other applications
        schemas = document["components"]["schemas"]
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _describe(operation, _failures(path))
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    schemas |= content["schema"].pop("$defs", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body that a route reads by itself; `describe_problems` moves what it names.

    Args:
        model: Reads it.
    """
    return model.model_json_schema(ref_template="#/components/schemas/{model}")


def _failures(path: str) -> Mapping[str, Any]:
    """What failures are written in: problem details, or FHIR where that is asked for."""
    if path.startswith(FHIR_PREFIX):
        return _OUTCOME
    return {**_PROBLEM, **_OUTCOME} if path == "/predict" else _PROBLEM


def _describe(operation: dict[str, Any], failures: Mapping[str, Any]) -> None:
    responses = operation["responses"]
    more = _REFUSALS | _LATE if "security" in operation else _LATE
    for status, description in more.items():
        responses.setdefault(status, {"description": description})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = dict(failures)
        for content in response.get("content", {}).values():
            # FastAPI takes every answer that is not plain JSON for a string too.
            if "$ref" in content.get("schema", {}):
                content["schema"].pop("type", None)
