"""Series that an alert takes the increase of begin at 0: an increase from nothing is none.

A counter with labels is not there before its first event; Prometheus would see that one, which may
be the only one, as the number that there always was.
"""

from collections.abc import Collection
from typing import Final

from app.api.errors import kind_of
from app.domain.errors import INTERNAL_ERROR, IdentityProviderUnavailableError
from app.interop.fhir_conformance import OPERATION_PATH
from app.interop.uploads import STUDIES_PATH
from app.metrics import Metrics

_FAILED: Final = (500, 502, 503, 504)
_TURNED_AWAY: Final = (401, 403, 408, 413, 429, 503, 504)
_STATUSES: Final = {"/predict": _FAILED, OPERATION_PATH: _FAILED, STUDIES_PATH: _TURNED_AWAY}
"""Of POST, by route: those that deploy/prometheus/rules/alerts.yml asks for by name."""


def expect(metrics: Metrics, routes: Collection[str], *, has_tokens: bool) -> None:
    """Let what alerts count begin at 0.

    Args:
        metrics: Of the service.
        routes: Templates of all routes, and what stands for a path that is none.
        has_tokens: Whether callers may have tokens of an identity provider, which may be away.
    """
    kinds = [INTERNAL_ERROR]
    if has_tokens:
        kinds.append(kind_of(IdentityProviderUnavailableError("")))
    for route in routes:
        for kind in kinds:
            metrics.problems.labels(route, kind)
    for route, statuses in _STATUSES.items():
        if route in routes:
            for status in statuses:
                metrics.requests.labels("POST", route, str(status))
