"""An alert's first event is not lost: what it counts is there, at 0, before anything happens."""

import re

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.expected_series import expect
from app.interop.fhir_conformance import OPERATION_PATH
from app.metrics import Metrics
from tests.conftest import REPOSITORY

ALERTS = (REPOSITORY / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8")
ROUTES = ("/predict", OPERATION_PATH, "/dicom/studies", "other")


def counted(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Values by all labels' values, in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def render(*, has_tokens: bool) -> str:
    metrics = Metrics()
    expect(metrics, ROUTES, has_tokens=has_tokens)
    return metrics.render().decode()


def test_every_status_that_an_alert_names_begins_at_0() -> None:
    (alternatives,) = re.findall(r'route="/dicom/studies", status=~"([^"]+)"', ALERTS)
    statuses = alternatives.split("|")
    assert len(statuses) > 5
    found = counted(render(has_tokens=False), "dermhybrid_http_requests_total")
    for status in statuses:
        assert found[("POST", "/dicom/studies", status)] == 0.0
    for route in ("/predict", OPERATION_PATH):  # alerts name 5.. there: what these can answer
        for status in ("500", "502", "503", "504"):
            assert found[("POST", route, status)] == 0.0


def test_the_identity_provider_counts_where_there_is_one() -> None:
    kind = "identity-provider-unavailable"
    assert f'problem="{kind}"' in ALERTS
    found = counted(render(has_tokens=True), "dermhybrid_problems_total")
    assert [found[(kind, route)] for route in ROUTES] == [0.0] * len(ROUTES)
    without = counted(render(has_tokens=False), "dermhybrid_problems_total")
    assert sorted(without) == sorted(("internal-error", route) for route in ROUTES)


def test_a_service_that_answered_nobody_yet_has_them(client: TestClient) -> None:
    found = counted(client.get("/metrics").text, "dermhybrid_http_requests_total")
    assert ("POST", "/predict", "504") in found
    assert not [labels for labels in found if labels[1] == "/dicom/studies"]  # it has no queue
