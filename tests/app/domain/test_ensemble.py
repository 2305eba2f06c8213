"""The ensemble's schema leaves none of its rules out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.ensemble import ENSEMBLE_NAME, read_ensemble
from app.domain.errors import ManifestError
from tests.conftest import REPOSITORY

COMMITTED = REPOSITORY / "models" / ENSEMBLE_NAME


def no_limit_of_disagreement(content: dict[str, Any]) -> None:
    content["decision"]["max_disagreement"] = None


def a_sensitivity_of_no_point(content: dict[str, Any]) -> None:
    content["decision"]["referring_sensitivity"] = 0.91


def points_of_melanoma_alone(content: dict[str, Any]) -> None:
    for point in content["calibration"]["operating_points"]:
        point["target"] = "melanoma"


def a_class_that_is_none(content: dict[str, Any]) -> None:
    content["calibration"]["operating_points"][0]["labels"] = ["melanoma"]


def no_rules(content: dict[str, Any]) -> None:
    content["decision"] = None


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (no_limit_of_disagreement, r"decision\.max_disagreement"),
        (a_sensitivity_of_no_point, r"decision\.referring_sensitivity, 0\.91"),
        (points_of_melanoma_alone, r"decision\.referring_sensitivity, 0\.9"),
        (a_class_that_is_none, "received .'melanoma'"),
        (no_rules, "decision"),
    ],
)
def test_an_ensemble_that_lacks_a_rule_is_refused(
    damage: Callable[[dict[str, Any]], None], named: str, tmp_path: Path
) -> None:
    content = json.loads(COMMITTED.read_text())
    path = tmp_path / ENSEMBLE_NAME
    path.write_text(json.dumps(content))
    assert read_ensemble(path) == read_ensemble(COMMITTED)
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=named) as caught:
        read_ensemble(path)
    assert ENSEMBLE_NAME in str(caught.value)
