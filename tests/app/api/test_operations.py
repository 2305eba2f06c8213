"""Health, metrics and the API's own description."""

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.domain.errors import ArtifactDigestError
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL


def sample(client: TestClient, name: str, **labels: str) -> float:
    total = 0.0
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for s in family.samples:
            if s.name == name and labels.items() <= s.labels.items():
                total += s.value
    return total


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready", "authentication": "off"}


def test_predictions_move_the_metrics(client: TestClient, lesion_png: bytes) -> None:
    route = {"method": "POST", "route": "/predict"}
    model = {"model": PLAIN_MODEL, "version": "2"}
    counters = [
        ("dermhybrid_http_requests_total", {**route, "status": "200"}),
        ("dermhybrid_http_request_duration_seconds_count", route),
        ("dermhybrid_predictions_total", model),
        *(
            ("dermhybrid_stage_duration_seconds_count", {**model, "stage": stage})
            for stage in ("decode", "inference", "explain")
        ),
    ]
    queue = ("dermhybrid_stage_duration_seconds_count", {**model, "stage": "queue"})
    waited = sample(client, queue[0], **queue[1])
    before = [sample(client, name, **labels) for name, labels in counters]
    for _ in range(3):
        client.post("/predict", files={"image": lesion_png})
    after = [sample(client, name, **labels) for name, labels in counters]
    assert [b - a for a, b in zip(before, after, strict=True)] == [3.0] * len(counters)
    assert sample(client, queue[0], **queue[1]) == waited + 3 * 3  # each stage waits for a thread


def test_refusals_are_counted_by_status(client: TestClient) -> None:
    labels = {"method": "POST", "route": "/predict", "status": "422"}
    before = sample(client, "dermhybrid_http_requests_total", **labels)
    client.post("/predict", files={"image": b""})
    assert sample(client, "dermhybrid_http_requests_total", **labels) == before + 1


def test_models_are_announced_with_their_digest(client: TestClient) -> None:
    for model in client.get("/models").json()["models"]:
        labels = {"model": model["name"], "version": str(model["version"])}
        assert sample(client, "dermhybrid_model_info", **labels, digest=model["digest"]) == 1
    assert sample(client, "dermhybrid_ready") == 1


def test_labels_stay_bounded(client: TestClient) -> None:
    client.get("/models/patient-a")
    client.get("/patient-b")
    client.request("BREW", "/predict")
    text = client.get("/metrics").text
    assert "patient" not in text
    assert "BREW" not in text
    assert sample(client, "dermhybrid_http_requests_total", route="/models/{name}") >= 1
    assert sample(client, "dermhybrid_http_requests_total", route="unmatched") >= 1


def test_openapi_describes_the_real_answer(client: TestClient, lesion_png: bytes) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "image/jpeg", "image/png"} <= set(
        operation["requestBody"]["content"]
    )
    schema = document["components"]["schemas"]["PredictionResponse"]
    answer = client.post("/predict", files={"image": lesion_png}).json()
    assert set(schema["properties"]) == set(answer) == set(schema["example"])
    assert set(schema["example"]["heatmap"]) == set(answer["heatmap"])


def test_openapi_lists_the_problems_that_really_come(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
    documented = document["paths"]["/predict"]["post"]["responses"]
    form = {"content-type": "multipart/form-data; boundary=x"}
    refusals = [
        client.post("/predict", content=b"nonsense", headers=form),
        client.post("/predict", params={"model": "unknown"}),
        client.post("/predict", content=b"x" * 3_000_000, headers={"content-type": "image/png"}),
        client.post("/predict", content=b"text", headers={"content-type": "image/png"}),
        client.post("/predict", files={"image": b""}),
        client.post("/predict", params={"heatmap": "perhaps"}),
    ]
    problem = set(document["components"]["schemas"]["Problem"]["properties"])
    for refusal in refusals:
        media_type = refusal.headers["content-type"]
        schema = documented[str(refusal.status_code)]["content"][media_type]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
        assert set(refusal.json()) == problem
    assert {r.status_code for r in refusals} >= {404, 413, 415, 422}


def test_damaged_model_stops_the_start(own_models: Path) -> None:
    path = own_models / PLAIN_MODEL / "1" / "saved_model.pb"
    path.write_bytes(path.read_bytes() + b"\0")
    application = create_app(Settings(models_dir=own_models))
    with pytest.raises(ArtifactDigestError, match=r"saved_model\.pb"), TestClient(application):
        pass


def test_a_shadow_is_measured_and_not_seen(tiny_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=tiny_models, shadow_model=f"{PLAIN_MODEL}@2")
    with TestClient(create_app(settings)) as client:
        answer = client.post(f"/predict?model={PLAIN_MODEL}", files={"image": lesion_png}).json()
        refused = client.post(f"/predict?model={PLAIN_MODEL}@2", files={"image": lesion_png})
        listed = {(m["name"], m["version"]) for m in client.get("/models").json()["models"]}
        assert (answer["model"]["name"], answer["model"]["version"]) == (PLAIN_MODEL, 1)
        assert refused.status_code == 404
        assert listed == {(PLAIN_MODEL, 1), (ATTENTION_MODEL, 1)}
        default = client.post("/predict", files={"image": lesion_png}).json()["predicted_class"]
        scored = (
            f'shadow_predictions_total{{model="{PLAIN_MODEL}",served_class="{default["label"]}"'
        )
        give_up = time.monotonic() + 30
        while scored not in client.get("/metrics").text:  # it scores after the answer
            assert time.monotonic() < give_up


def test_the_model_card_is_the_artifacts(client: TestClient, tiny_models: Path) -> None:
    for name, folder in ((PLAIN_MODEL, "2"), (f"{PLAIN_MODEL}@1", "1")):
        answer = client.get(f"/models/{name}/card")
        card = tiny_models / PLAIN_MODEL / folder / "MODEL_CARD.md"
        assert answer.text == card.read_text(encoding="utf-8")
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert client.get("/models/none/card").status_code == 404
