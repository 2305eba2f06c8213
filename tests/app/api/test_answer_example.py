"""OpenAPI's example is what the functions that make real answers make of its own figures."""

import cv2
import numpy as np
import pytest

from app.api.answer_example import ANSWER_EXAMPLE as EXAMPLE
from app.api.answer_schemas import PredictionResponse
from app.api.presenters import class_schema
from app.domain.decision import Evidence, Gates, decide, disagreement
from app.domain.ensemble import pool
from app.domain.heatmap_checks import check_heatmap
from app.domain.labels import CLASSES, LABELS
from tests.tiny_rules import tiny_point, tiny_rules

PROBABILITIES = np.array([EXAMPLE["probabilities"][label] for label in LABELS], np.float32)
MEMBERS = EXAMPLE["ensemble"]["members"]


def test_it_is_of_the_schema_and_leaves_nothing_out() -> None:
    assert PredictionResponse.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE


def test_its_decision_is_made_of_its_figures() -> None:
    novelty = EXAMPLE["out_of_distribution"]
    rules = tiny_rules(
        novelty=novelty["threshold"],
        num_components=None,
        max_disagreement=0.4,
    )
    (expected,) = EXAMPLE["operating_points"]
    decision = decide(
        Evidence(PROBABILITIES, novelty["score"], EXAMPLE["ensemble"]["disagreement"]),
        rules,
        [tiny_point(threshold=expected["threshold"])],
        Gates(),
    )
    assert EXAMPLE["decision"] == {
        "action": decision.action,
        "reasons": list(decision.reasons),
        "sentence": decision.sentence,
    }
    assert EXAMPLE["prediction_sets"][0]["labels"] == [*decision.prediction_sets[0].labels]
    (point,) = decision.operating_points
    assert expected["labels"] == point.point.labels
    assert (expected["probability"], expected["positive"]) == (
        pytest.approx(point.probability),
        point.positive,
    )


def test_its_class_is_that_of_the_highest_probability() -> None:
    index = int(PROBABILITIES.argmax())
    assert EXAMPLE["predicted_class"] == class_schema(CLASSES[index]).model_dump(mode="json")
    assert EXAMPLE["confidence"] == EXAMPLE["probabilities"][LABELS[index]]
    assert PROBABILITIES.sum() == pytest.approx(1.0)


def test_its_ensemble_is_combined_of_its_members() -> None:
    own = {
        member["model"]["name"]: np.array([[*member["probabilities"].values()]], np.float32)
        for member in MEMBERS
    }
    weights = {member["model"]["name"]: member["weight"] for member in MEMBERS}
    np.testing.assert_allclose(pool(own, weights, 1.0)[0], PROBABILITIES, atol=1e-3)
    found = disagreement([*own.values()])[0]
    assert EXAMPLE["ensemble"]["disagreement"] == pytest.approx(found, abs=1e-3)


def test_its_heatmap_is_the_heaviest_members_and_checked() -> None:
    heatmap = EXAMPLE["heatmap"]
    heaviest = max(MEMBERS, key=lambda member: member["weight"])["model"]
    assert heatmap["model"] == f"{heaviest['name']}@{heaviest['version']}"
    values = np.array(heatmap["map"], np.float32)
    assert (values.shape, heatmap["scale"]) == ((7, 7), pytest.approx(values.max()))
    picture = np.full((224, 224, 3), (215, 160, 140), np.uint8)
    cv2.circle(picture, (112, 112), 36, (110, 60, 40), -1)
    check = check_heatmap(values, picture)
    assert heatmap["flags"] == list(check.flags)
    assert heatmap["share_at_border"] == pytest.approx(check.share_at_border, abs=0.005)
    assert heatmap["share_in_lesion"] == pytest.approx(check.share_in_lesion, abs=0.005)
