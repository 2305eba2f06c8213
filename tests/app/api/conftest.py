"""Models with rules, and the real servers that the API is tried against."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fhir_peers import running
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules, write_tiny_ensemble


@pytest.fixture(scope="session")
def ruled_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with rules, one of them with attention, and their ensemble."""
    models = tmp_path_factory.mktemp("ruled")
    rules = tiny_rules(min_confidence=0.1, max_set_size=7, novelty=0.5)
    members = [
        write_tiny_artifact(
            models,
            name,
            attention=attention,
            seed=seed,
            calibration=tiny_calibration(tiny_point(threshold=1.0)),
            decision=rules,
        )
        for seed, (name, attention) in enumerate((("light", False), ("heavy", True)), start=1)
    ]
    write_tiny_ensemble(
        models,
        members,
        (0.25, 0.75),
        rules=tiny_rules(
            min_confidence=0.1,
            max_set_size=7,
            novelty=1.0,
            num_components=None,
            max_disagreement=1.0,
        ),
    )
    return models


@pytest.fixture(scope="module")
def fhir_server() -> Iterator[str]:
    """Address of a real FHIR R4 server that validates what it stores."""
    with running("fhir_server.mjs") as address:
        yield address
