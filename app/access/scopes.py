"""What a caller may do; knows nothing of HTTP or of how callers are told apart (ADR-0022)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """A permission. Every route that is not public needs exactly one."""

    PREDICT = "predict"
    """Have pictures answered."""
    REPORTS_WRITE = "reports:write"
    """Have answers stored in a patient's record or in the archive."""
    REPORTS_READ = "reports:read"
    """Learn of the newest answer in a patient's record."""
    MODELS_READ = "models:read"
    """See which models are loaded, and how good they are."""
    FEEDBACK = "feedback"
    """Record diagnoses beside answers."""
    METRICS = "metrics"
    """Read the measurements."""
    ADMIN = "admin"
    """Reload the models, and see every sender's DICOM jobs."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        id: `key:ID` of an API key, `oauth:CLIENT` of a token, or an address where nobody is told
            apart.
        scopes: What it may do.
        is_known: False where nobody is told apart.
    """

    id: str
    scopes: frozenset[Scope]
    is_known: bool = True


OPERATIONS: Final = frozenset({Scope.METRICS, Scope.ADMIN})
"""For the service's operators, who may have a port of their own."""

_SMART: Final = re.compile(
    r"(?P<of>user|system)/(?P<resource>[A-Z][A-Za-z]*|\*)\.(?P<rights>read|write|\*|c?r?u?d?s?)"
)
"""SMART App Launch 2.2, clinical scopes of versions 1 and 2 without search parameters. Those of a
`patient/` are not taken: the service does not know whose picture it is given."""

_AS_ITSELF: Final = frozenset({Scope.REPORTS_WRITE, Scope.REPORTS_READ})
"""What the service does in any patient's record with its own credential: not to be had by `user/`,
which its server limits to what that user may see."""

_BY_SMART: Final = (
    # (resource, right): a report is created by predicting; a model is a device (FHIR R4); a
    # diagnosis that comes back is an observation.
    ("DiagnosticReport", "c", Scope.PREDICT),
    ("DiagnosticReport", "c", Scope.REPORTS_WRITE),
    ("DiagnosticReport", "s", Scope.REPORTS_READ),
    ("Device", "r", Scope.MODELS_READ),
    ("Observation", "c", Scope.FEEDBACK),
)
_BY_NAME: Final = {scope.value: scope for scope in Scope}
_RIGHTS: Final = {"read": "rs", "write": "cud", "*": "cruds"}


def granted(scopes: Iterable[str]) -> frozenset[Scope]:
    """The permissions that an authorization server's scopes give; others mean nothing here.

    Args:
        scopes: This service's own names, or SMART's. `metrics` and `admin` are given by name
            alone.
    """
    found = set()
    for scope in scopes:
        if scope in _BY_NAME:
            found.add(_BY_NAME[scope])
        elif smart := _SMART.fullmatch(scope):
            rights = _RIGHTS.get(smart["rights"], smart["rights"])
            found |= {
                own
                for resource, right, own in _BY_SMART
                if smart["resource"] in {resource, "*"}
                and right in rights
                and (smart["of"] == "system" or own not in _AS_ITSELF)
            }
    return frozenset(found)
