"""The card as data says what the manifest says."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.domain.card import SKIN_TONE_LIMIT
from app.domain.card_schema import AppliedModelCard
from app.domain.manifest import read_manifest
from app.domain.notice import RESEARCH_USE_NOTICE
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY


def test_a_models_card_has_the_figures_of_its_manifest(
    client: TestClient, tiny_models: Path
) -> None:
    manifest, digest = read_manifest(tiny_models / ATTENTION_MODEL / "1")
    answer = client.get(f"/models/{ATTENTION_MODEL}/card?format=json")
    assert answer.headers["content-type"] == "application/json"
    card = AppliedModelCard.model_validate_json(answer.content)
    assert card.notice == RESEARCH_USE_NOTICE
    assert (card.basic_info.model_name, card.release_info.release_version) == (
        ATTENTION_MODEL,
        "1",
    )
    assert card.release_info.model_digest == digest
    assert SKIN_TONE_LIMIT in card.warnings.known_biases_or_ethical_considerations
    metrics = card.key_metrics.usefulness_usability_efficacy
    figures = {result.label: result.value for result in metrics.results}
    assert figures["accuracy"] == manifest.metrics.accuracy
    assert figures["mel recall"] == manifest.metrics.per_class["mel"].recall
    assert f"{manifest.metrics.num_images} images" in metrics.testing_data_description


def test_an_uncalibrated_models_card_says_so(client: TestClient) -> None:
    card = client.get(f"/models/{PLAIN_MODEL}/card?format=json").json()
    limits = card["warnings"]["known_risks_and_limitations"]
    assert any("not calibrated" in limit for limit in limits)
    assert any("Nothing in the model notices" in limit for limit in limits)


def test_another_format_is_refused(client: TestClient) -> None:
    answer = client.get(f"/models/{PLAIN_MODEL}/card?format=xml")
    assert answer.status_code == 422
    assert "markdown" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["ensemble", "cnn_efficientnet_lite0"])
def test_the_shipped_cards_tell_decisions_and_subgroups(name: str) -> None:
    settings = Settings(models_dir=REPOSITORY / "models", runtime="openvino")
    with TestClient(create_app(settings)) as client:
        card = client.get(f"/models/{name}/card?format=json").json()
        rules = client.get(f"/models/{name}").json()["decision_rules"]
    metrics = card["key_metrics"]
    safety = {
        result["label"]: result["value"] for result in metrics["safety_reliability"]["results"]
    }
    assert safety["share reported"] == rules["outcome"]["reported"]
    assert safety["accuracy of what is reported"] == rules["outcome"]["accuracy"]
    assert safety["coverage of 90% prediction sets"]["value"] > 0
    groups = [result["label"] for result in metrics["fairness_equity"]["results"]]
    assert any(label.startswith("age under 40 accuracy") for label in groups)
    assert any(label.startswith("sex female melanoma recall") for label in groups)
