"""What an authorization server's scopes are worth here."""

import pytest

from app.access.scopes import Scope, granted


def test_own_names_are_taken_as_they_are() -> None:
    assert granted([scope.value for scope in Scope]) == set(Scope)
    assert granted(["openid", "profile", "", "Predict", "predict ", "models"]) == set()


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("system/DiagnosticReport.c", {Scope.PREDICT, Scope.REPORTS_WRITE}),
        ("system/DiagnosticReport.cruds", {Scope.PREDICT, Scope.REPORTS_WRITE, Scope.REPORTS_READ}),
        ("system/DiagnosticReport.write", {Scope.PREDICT, Scope.REPORTS_WRITE}),
        ("system/DiagnosticReport.rs", {Scope.REPORTS_READ}),
        ("system/DiagnosticReport.r", set()),
        # A user's rights end at some patients; the service's own credential has no such end.
        ("user/DiagnosticReport.cruds", {Scope.PREDICT}),
        ("user/*.*", {Scope.PREDICT, Scope.MODELS_READ, Scope.FEEDBACK}),
        ("system/Device.read", {Scope.MODELS_READ}),
        ("system/Observation.cu", {Scope.FEEDBACK}),
        ("system/*.*", set(Scope) - {Scope.METRICS, Scope.ADMIN}),
        ("system/*.rs", {Scope.MODELS_READ, Scope.REPORTS_READ}),
        ("patient/DiagnosticReport.c", set()),
        ("system/DiagnosticReport.dc", set()),
        ("system/DiagnosticReport.c?category=x", set()),
        ("xsystem/*.*", set()),
    ],
)
def test_smart_scopes_give_no_more_than_their_resource_means(
    scope: str, expected: set[Scope]
) -> None:
    assert granted([scope]) == expected
