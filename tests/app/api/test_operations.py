"""Health, metrics and the API's own description."""

import asyncio
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.api import answering
from app.api.threads import run_queued
from app.domain.drift import population_stability_index
from app.domain.errors import ArtifactDigestError
from app.domain.labels import LABELS
from app.main import create_app
from app.settings import Settings
from tests.app.api.hanging import hanging_service
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL
from tests.programs import require_program
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules


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
            for stage in ("receive", "decode", "inference", "explain", "encode")
        ),
        ("dermhybrid_confidence_ratio_count", model),
        ("dermhybrid_decisions_total", model),
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


def test_failures_are_counted_by_their_kind(client: TestClient, lesion_png: bytes) -> None:
    def count(route: str, problem: str) -> float:
        return sample(client, "dermhybrid_problems_total", route=route, problem=problem)

    expected = [
        ("/predict", "image-format"),
        ("/predict/batch", "image-format"),
        ("/models/{name}", "model-not-found"),
        ("unmatched", "not-found"),
    ]
    before = [count(*labels) for labels in expected]
    client.post("/predict", content=b"text", headers={"content-type": "image/png"})
    client.post("/predict/batch", files=[("image", b"text"), ("image", lesion_png)])
    client.get("/models/unknown")
    client.get("/nowhere")
    assert [count(*labels) for labels in expected] == [b + 1 for b in before]


def test_whoever_was_shed_or_expired_is_counted(tiny_models: Path, lesion_png: bytes) -> None:
    async def scenario() -> None:
        settings = Settings(models_dir=tiny_models, max_predictions_in_progress=2)
        async with hanging_service(settings) as (app, http, engine):
            metrics = app.state.services.metrics

            def value(name: str, **labels: str) -> float:
                return metrics.registry.get_sample_value(f"dermhybrid_{name}", labels) or 0.0

            def problems(kind: str) -> float:
                return value("problems_total", route="/predict", problem=kind)

            image = {"image": lesion_png}
            first = asyncio.create_task(http.post("/predict", files=image))
            await asyncio.to_thread(engine.started.wait, 30)
            late = {"x-request-timeout": "5"}
            second = asyncio.create_task(http.post("/predict", files=image, headers=late))
            while not value("queue_images", model=PLAIN_MODEL, version="2"):
                assert not second.done()
                await asyncio.sleep(0.01)
            assert (await http.post("/predict", files=image)).status_code == 503
            assert problems("service-busy") == 1
            assert (await second).status_code == 504
            assert problems("deadline-exceeded") == 1
            assert value("queue_images", model=PLAIN_MODEL, version="2") == 0
            engine.release.set()
            assert (await first).status_code == 200

    asyncio.run(scenario())


def test_drift_and_novelty_are_measured_against_the_model_itself(
    tmp_path: Path, lesion_png: bytes
) -> None:
    write_tiny_artifact(
        tmp_path,
        "ruled",
        calibration=tiny_calibration(tiny_point(threshold=1.0)),
        decision=tiny_rules(novelty=0.5),
    )
    settings = Settings(models_dir=tmp_path, runtime="openvino")
    with TestClient(create_app(settings)) as client:
        for _ in range(5):
            client.post("/predict", files={"image": lesion_png})
        assert sample(client, "dermhybrid_class_drift_answers", model="ruled") == 5
        (label,) = [
            label
            for label in LABELS
            if sample(client, "dermhybrid_predictions_total", predicted_class=label)
        ]
        now = [5.0 * (other == label) for other in LABELS]
        index = sample(client, "dermhybrid_class_drift_index", model="ruled")
        assert index == pytest.approx(population_stability_index(now, [1.0] * 7))
        assert sample(client, "dermhybrid_novelty_ratio_count", model="ruled") == 5
        assert sample(client, "dermhybrid_novelty_ratio_bucket", model="ruled", le="1.0") == 5
        assert sample(client, "dermhybrid_self_test_timestamp_seconds") == pytest.approx(
            time.time(), abs=3600
        )


@pytest.mark.parametrize("name", ["light", "ensemble"])
def test_an_answer_of_a_model_that_leaves_is_counted_and_has_no_drift(
    ruled_models: Path,
    tmp_path: Path,
    lesion_png: bytes,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    models = shutil.copytree(ruled_models, tmp_path / "models")
    settings = Settings(models_dir=models, runtime="openvino", default_model="heavy")
    with TestClient(create_app(settings)) as client:
        fleet = client.app.state.services.fleet  # type: ignore[attr-defined]
        drift = f'dermhybrid_class_drift_index{{model="{name}"'

        def ask() -> None:
            answer = client.post("/predict", params={"model": name}, files={"image": lesion_png})
            assert answer.status_code == 200

        ask()
        assert drift in client.get("/metrics").text

        async def reload_first(*arguments: Any) -> Any:
            (models / "ensemble.json").unlink()
            shutil.rmtree(models / "light")
            await fleet.reload()
            return await run_queued(*arguments)

        monkeypatch.setattr(answering, "run_queued", reload_first)
        ask()
        assert drift not in client.get("/metrics").text
        assert sample(client, "dermhybrid_decisions_total", model=name) == 2


def test_prometheus_finds_nothing_to_complain_about(client: TestClient, lesion_png: bytes) -> None:
    promtool = require_program("promtool")
    client.post("/predict", files={"image": lesion_png})
    text = client.get("/metrics").content
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert sample(client, "dermhybrid_build_info", version=version("dermhybrid")) == 1
    assert sample(client, "dermhybrid_authentication_required") == 0
    assert sample(client, "process_resident_memory_bytes") > 0


def test_models_are_announced_with_their_digest(client: TestClient) -> None:
    for model in client.get("/models").json()["models"]:
        labels = {"model": model["name"], "version": str(model["version"])}
        assert sample(client, "dermhybrid_model_info", **labels, digest=model["digest"]) == 1
    assert sample(client, "dermhybrid_ready") == 1


def test_the_metric_of_readiness_is_what_readiness_answers(tiny_models: Path) -> None:
    application = create_app(Settings(models_dir=tiny_models))
    with TestClient(application) as client:
        services = application.state.services
        model = services.fleet.get(None)
        seen = []
        for fault in (None, "another answer", None):
            model.fault = fault
            answer = client.get("/health/ready")
            seen.append((answer.status_code, sample(client, "dermhybrid_ready")))
        services.begin_to_stop()
        answer = client.get("/health/ready")
        seen.append((answer.status_code, sample(client, "dermhybrid_ready")))
    assert seen == [(200, 1), (503, 0), (200, 1), (503, 0)]


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
