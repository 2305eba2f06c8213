"""Mend what FastAPI writes about answers: all failures are problem details, lines are JSON."""

from typing import Any, Final

from fastapi import FastAPI

from app.api.errors import PROBLEM_MEDIA_TYPE

_REFUSALS: Final = {
    "401": "There is no valid credential.",
    "403": "The credential lacks the scope.",
    "429": "The caller has asked for more than its share; `Retry-After` says when to come back.",
}


def describe_problems(app: FastAPI) -> None:
    """Let an application's OpenAPI document give failures their real media type and schema."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for methods in document["paths"].values():
            for operation in methods.values():
                if "security" in operation:
                    operation["responses"] |= {s: {"description": d} for s, d in _REFUSALS.items()}
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = {
                            PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                        }
                    for content in response.get("content", {}).values():
                        # FastAPI takes every answer that is not plain JSON for a string too.
                        if "$ref" in content.get("schema", {}):
                            content["schema"].pop("type", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
