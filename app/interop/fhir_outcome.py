"""A problem as a FHIR OperationOutcome."""

from collections.abc import Mapping
from typing import Any, Final

from app.interop.fhir_codes import Json

PROBLEM_SYSTEM: Final = "urn:dermhybrid:problem"
"""What `type` of the plain problems begins with."""

_ISSUE_BY_PROBLEM: Final = {
    "image-corrupt": "structure",
    "image-too-small": "value",
    "image-too-many-pixels": "too-costly",
    "unprocessable-entity": "required",
    "heatmap-unavailable": "not-supported",
    "model-fault": "exception",
    "service-busy": "throttled",
    "audit-unavailable": "no-store",
    "answer-ambiguous": "multiple-matches",
}
_ISSUE_BY_STATUS: Final = {
    400: "structure",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    408: "timeout",
    409: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "invalid",
    429: "throttled",
    500: "exception",
    502: "transient",
    503: "transient",
    504: "timeout",
}
"""Codes of http://hl7.org/fhir/issue-type."""


def make_outcome(problem: Mapping[str, Any]) -> Json:
    """Write a problem down.

    Args:
        problem: RFC 9457 problem details, of this service.
    """
    slug = str(problem["type"]).removeprefix(f"{PROBLEM_SYSTEM}:")
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": _ISSUE_BY_PROBLEM.get(slug)
                or _ISSUE_BY_STATUS.get(problem["status"], "processing"),
                "details": {
                    "coding": [{"system": PROBLEM_SYSTEM, "code": slug}],
                    "text": problem["title"],
                },
                "diagnostics": f"{problem['detail']} Request id: {problem['request_id']}.",
            }
        ],
    }
