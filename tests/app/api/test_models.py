"""`GET /models`."""

from fastapi.testclient import TestClient

from app.domain.labels import LABELS
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL


def test_list_names_every_version_and_the_default(client: TestClient) -> None:
    models = client.get("/models").json()["models"]
    listed = [(m["name"], m["version"], m["default"], m["has_attention"]) for m in models]
    assert listed == [
        (PLAIN_MODEL, 2, True, False),
        (PLAIN_MODEL, 1, False, False),
        (ATTENTION_MODEL, 1, False, True),
    ]


def test_detail_tells_origin_and_quality(client: TestClient) -> None:
    body = client.get(f"/models/{PLAIN_MODEL}@1").json()
    assert body["version"] == 1
    assert [c["label"] for c in body["classes"]] == list(LABELS)
    assert body["training"]["protocol"] == "lesion"
    assert body["metrics"]["accuracy"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert "Not a medical device" in body["notice"]


def test_unknown_model_is_a_problem(client: TestClient) -> None:
    response = client.get("/models/unknown")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
