"""What `/predict` says of an answer: reported, referred or rejected; of one model or of several."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from app.api.answering import _ask_symmetries
from app.domain.ensemble import ENSEMBLE_CARD_NAME, pool
from app.domain.errors import ArtifactError
from app.domain.heatmaps import encode_png
from app.domain.images import RgbImage, decode_image, to_model_input
from app.domain.labels import LABELS
from app.domain.uncertainty import symmetries
from app.inference.tensorflow_engine import TensorFlowEngine
from app.main import create_app
from app.settings import Settings
from tests.pictures import sharp_lesion

GREEN = encode_png(np.full((240, 320, 3), (10, 240, 10), np.uint8))
"""Far from grey, which is all that the tiny models' training images span."""


@pytest.fixture(scope="module")
def ruled_client(ruled_models: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models_dir=ruled_models))) as client:
        yield client


def post(client: TestClient, image: bytes, **params: Any) -> dict[str, Any]:
    response = client.post("/predict", files={"image": ("lesion.png", image)}, params=params)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_an_answer_against_which_nothing_speaks(
    ruled_client: TestClient, lesion_png: bytes
) -> None:
    body = post(ruled_client, lesion_png, model="light")
    assert body["decision"]["action"] == "report"
    assert body["decision"]["reasons"] == []
    assert [found["coverage"] for found in body["prediction_sets"]] == [0.9, 0.95]
    assert body["prediction_sets"][0]["labels"][0] == body["predicted_class"]["label"]
    (point,) = body["operating_points"]
    malignant = sum(body["probabilities"][label] for label in point["labels"])
    assert point["probability"] == pytest.approx(malignant, abs=1e-6)
    assert point["positive"] is False
    assert 0 < body["out_of_distribution"]["score"] < body["out_of_distribution"]["threshold"]
    assert body["ensemble"] is None
    assert body["heatmap"]["model"] == "light@1"


@pytest.mark.parametrize("model", ["light", "ensemble"])
def test_a_rejected_picture_has_no_answer(ruled_client: TestClient, model: str) -> None:
    body = post(ruled_client, GREEN, model=model)
    assert body["decision"]["action"] == "reject"
    assert body["decision"]["reasons"][0] == "out-of-distribution"
    assert body["decision"]["sentence"].startswith("No answer is given")
    for field in ("predicted_class", "confidence", "probabilities", "heatmap", "ensemble"):
        assert body[field] is None, field
    assert body["prediction_sets"] == body["operating_points"] == []
    assert body["out_of_distribution"]["score"] > body["out_of_distribution"]["threshold"]
    assert "Not a medical device" in body["notice"]


def test_the_gate_can_refer_instead(ruled_models: Path) -> None:
    settings = Settings(models_dir=ruled_models, out_of_distribution_gate="advise")
    with TestClient(create_app(settings)) as client:
        body = post(client, GREEN, model="light")
    assert body["decision"]["action"] == "refer"
    assert body["predicted_class"]["label"] in LABELS
    assert body["heatmap"] is not None


def test_a_model_without_rules_is_referred(client: TestClient, lesion_png: bytes) -> None:
    body = post(client, lesion_png)
    assert (body["decision"]["action"], body["decision"]["reasons"]) == ("refer", ["no-rules"])
    assert body["predicted_class"] is not None
    assert body["out_of_distribution"] is None


@pytest.mark.parametrize(("gate", "action"), [("advise", "refer"), ("reject", "reject")])
def test_a_picture_of_poor_quality(ruled_models: Path, gate: str, action: str) -> None:
    small = encode_png(sharp_lesion(150, 150))
    settings = Settings(models_dir=ruled_models, quality_gate=gate)
    with TestClient(create_app(settings)) as client:
        body = post(client, small, model="light")
        assert _sample(client, 'dermhybrid_quality_issues_total{issue="low-resolution"}') == 1
    assert body["decision"]["action"] == action
    assert body["decision"]["reasons"] == ["poor-quality"]
    assert body["quality"]["issues"] == ["low-resolution"]
    assert body["quality"]["scores"]["shorter_side"] == 150
    assert (body["probabilities"] is None) == (action == "reject")


def test_the_ensemble_pools_its_members(
    ruled_client: TestClient, ruled_models: Path, lesion_png: bytes
) -> None:
    body = post(ruled_client, lesion_png, model="ensemble")
    image = to_model_input(decode_image(lesion_png).pixels)[None]
    own = {
        name: TensorFlowEngine(ruled_models / name / "1").predict(image)["probabilities"]
        for name in ("light", "heavy")
    }
    expected = pool(own, {"light": 0.25, "heavy": 0.75}, 2.0)[0]
    np.testing.assert_allclose(list(body["probabilities"].values()), expected, atol=1e-5)
    assert body["model"]["name"] == "ensemble"
    assert body["calibrated"] is True
    members = {member["model"]["name"]: member for member in body["ensemble"]["members"]}
    for name, answer in own.items():
        np.testing.assert_allclose(
            list(members[name]["probabilities"].values()), answer[0], atol=1e-5
        )
        assert members[name]["predicted_class"] == LABELS[int(answer[0].argmax())]
    assert members["heavy"]["weight"] == 0.75
    assert body["ensemble"]["disagreement"] > 0
    assert body["heatmap"]["model"] == "heavy@1"
    assert body["heatmap"]["method"] == "attention"
    single = post(ruled_client, lesion_png, model="heavy")["heatmap"]
    np.testing.assert_allclose(body["heatmap"]["map"], single["map"], atol=1e-6)


def test_the_ensemble_can_be_the_default(ruled_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=ruled_models, default_model="ensemble")
    with TestClient(create_app(settings)) as client:
        assert post(client, lesion_png)["model"]["name"] == "ensemble"
        listed = {
            model["name"]: model["default"] for model in client.get("/models").json()["models"]
        }
    assert listed == {"light": False, "heavy": False, "ensemble": True}


def test_the_ensemble_is_described(ruled_client: TestClient) -> None:
    detail = ruled_client.get("/models/ensemble@1").json()
    assert [member["name"] for member in detail["members"]] == ["light", "heavy"]
    assert detail["training"] is None
    assert detail["decision_rules"]["novelty"]["num_components"] is None
    assert ruled_client.get("/models/ensemble/card").text == "# Tiny ensemble\n"
    assert ruled_client.get("/models/light").json()["members"] == []


def test_a_batch_is_decided_image_by_image(ruled_client: TestClient, lesion_png: bytes) -> None:
    files = [("image", ("a.png", lesion_png)), ("image", ("b.png", GREEN))]
    response = ruled_client.post("/predict/batch", files=files, params={"model": "ensemble"})
    lines = {line["index"]: line for line in map(json.loads, response.text.splitlines())}
    assert lines[0]["answer"]["decision"]["reasons"] == ["malignancy"]
    assert lines[1]["answer"]["decision"]["action"] == "reject"
    assert lines[1]["status"] == 200


def test_decisions_are_counted_and_recorded(
    ruled_models: Path, tmp_path: Path, lesion_png: bytes
) -> None:
    settings = Settings(models_dir=ruled_models, audit_dir=tmp_path / "audit")
    with TestClient(create_app(settings)) as client:
        answers = [post(client, image, model="ensemble") for image in (lesion_png, GREEN)]
        text = client.get("/metrics").text
    labels = '{action="reject",model="ensemble",version="1"}'
    assert f"dermhybrid_decisions_total{labels} 1.0" in text
    assert 'reason="out-of-distribution",version="1"} 1.0' in text
    assert 'predicted_class="none",version="1"} 1.0' in text
    lines = (tmp_path / "audit" / "audit-000001.jsonl").read_text().splitlines()
    for record, answer in zip(map(json.loads, lines), answers, strict=True):
        kept = record["answer"]
        assert kept["decision"] == answer["decision"]
        assert kept["probabilities"] == answer["probabilities"]
        assert kept["prediction_sets"] == answer["prediction_sets"]
        assert kept["out_of_distribution"] == answer["out_of_distribution"]
        assert [m["name"] for m in record["members"]] == ["light", "heavy"]
        assert all(len(m["digest"]) == 64 for m in record["members"])
    first, second = (json.loads(line)["answer"]["predicted_class"] for line in lines)
    assert (first, second) == (answers[0]["predicted_class"]["label"], None)


@pytest.mark.parametrize("damage", ["member changed", "member gone", "card changed", "no schema"])
def test_an_ensemble_that_is_not_whole_stops_the_start(
    ruled_models: Path, tmp_path: Path, damage: str
) -> None:
    models = tmp_path / "models"
    shutil.copytree(ruled_models, models)
    ensemble = models / "ensemble.json"
    if damage == "member changed":
        manifest = models / "light" / "1" / "manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
    elif damage == "member gone":
        shutil.rmtree(models / "light")
    elif damage == "card changed":
        (models / ENSEMBLE_CARD_NAME).write_text("# Better\n")
    else:
        ensemble.write_text(ensemble.read_text().replace('"members"', '"others"'))
    with (
        pytest.raises(ArtifactError, match="ensemble|card"),
        TestClient(create_app(Settings(models_dir=models))),
    ):
        pass


def test_a_changed_feature_space_stops_the_start(ruled_models: Path, tmp_path: Path) -> None:
    models = shutil.copytree(ruled_models, tmp_path / "models")
    space = models / "light" / "1" / "feature_space.npz"
    space.write_bytes(space.read_bytes() + b"\0")
    with (
        pytest.raises(ArtifactError, match=r"feature_space\.npz: SHA-256"),
        TestClient(create_app(Settings(models_dir=models))),
    ):
        pass


def test_uncertainty_is_the_spread_over_the_symmetries(ruled_client: TestClient) -> None:
    # The tiny models see the mean colour alone, the same in every view.
    image = np.random.default_rng(3).integers(60, 200, (224, 224, 3), np.uint8)
    body = post(ruled_client, encode_png(image), model="light", tta=True)
    assert body["uncertainty"]["views"] == 8
    assert body["uncertainty"]["same_class"] == 1.0
    assert max(body["uncertainty"]["standard_deviation"].values()) < 1e-6
    batches = 'dermhybrid_batch_size_sum{model="light",version="1"}'
    before = _sample(ruled_client, batches)
    post(ruled_client, encode_png(image), model="light")
    assert _sample(ruled_client, batches) == before + 1
    post(ruled_client, encode_png(image), model="light", tta=True)
    assert _sample(ruled_client, batches) == before + 9


def test_every_view_is_asked_about() -> None:
    image = np.random.default_rng(4).integers(0, 256, (224, 224, 3), np.uint8)

    class Corner:
        """Answers by the first pixel; stands in for a model."""

        def __init__(self) -> None:
            self.seen: list[RgbImage] = []

        async def predict(self, view: RgbImage) -> SimpleNamespace:
            self.seen.append(view)
            return SimpleNamespace(probabilities=self.answer(view))

        def answer(self, view: RgbImage) -> npt.NDArray[np.float32]:
            share = view[0, 0, 0] / 255
            return np.array([share, 0, 0, 0, 0, 1 - share, 0], np.float32)

    model: Any = Corner()
    first: Any = SimpleNamespace(probabilities=model.answer(image))
    found = asyncio.run(_ask_symmetries(model, image, first))
    views = list(symmetries(image))
    assert len(model.seen) == len(views) - 1
    for seen, view in zip(model.seen, views[1:], strict=True):
        np.testing.assert_array_equal(seen, view)
    answers = np.stack([model.answer(view) for view in views])
    np.testing.assert_allclose(found.standard_deviation, answers.std(axis=0), atol=1e-6)
    assert found.standard_deviation[0] > 0.05
    assert found.same_class == (answers.argmax(axis=1) == answers[0].argmax()).mean()


@pytest.mark.parametrize("params", [{}, {"tta": True}])
def test_uncertainty_is_given_where_asked_for_and_answered(
    ruled_client: TestClient, lesion_png: bytes, params: dict[str, Any]
) -> None:
    given = post(ruled_client, lesion_png, model="ensemble", **params)["uncertainty"]
    assert (given is not None) == bool(params)
    assert post(ruled_client, GREEN, model="ensemble", **params)["uncertainty"] is None


def _sample(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).rsplit(" ", 1)[1])
