"""The README tells the truth about the committed models."""

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.domain.manifest import Manifest, read_manifest
from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY
from training.readme import MODELS, NAMES, decisions_table, newest_artifact, results_table

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """The service with the committed models."""
    settings = Settings(models_dir=REPOSITORY / MODELS, runtime="openvino")  # as `make serve`
    with TestClient(create_app(settings)) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return [read_manifest(newest_artifact(name))[0] for name in NAMES]


def test_the_quoted_answer_is_the_services_own(client: TestClient) -> None:
    quoted = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL).group(1))  # type: ignore[union-attr]
    path = re.search(r"curl -F image=@(models/\S+) localhost:8000/predict", README).group(1)  # type: ignore[union-attr]
    image = (REPOSITORY / path).read_bytes()
    answer = client.post("/predict", files={"image": image}).json()
    assert _shape(quoted) == _shape(answer)
    for key in ("decision", "model", "predicted_class", "image", "notice", "calibrated"):
        assert quoted[key] == answer[key]
    assert quoted["quality"]["scores"] == pytest.approx(answer["quality"]["scores"], abs=1e-3)


def _shape(value: Any) -> Any:
    return {k: _shape(v) for k, v in value.items()} if isinstance(value, dict) else type(value)


def test_the_tables_are_the_manifests(manifests: list[Manifest]) -> None:
    assert results_table() in README
    assert decisions_table() in README
    for manifest in manifests:
        assert manifest.metrics.part == "test"
        assert manifest.training.protocol == "lesion"


def test_every_route_and_setting_is_documented(client: TestClient) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in README
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in README


def test_committed_artifacts_fit_the_repository() -> None:
    files = [path for path in (REPOSITORY / MODELS).rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 100e6
    assert sum(path.stat().st_size for path in files) < 160e6


def test_artifacts_have_the_papers_parameters_and_size(manifests: list[Manifest]) -> None:
    assert [m.num_parameters for m in manifests] == [4_260_104, 8_199_111, 25_252_744]
    for manifest in manifests:
        folder = newest_artifact(manifest.name)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size <= 4.1 * manifest.num_parameters + 5e6


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_answered_or_refused(
    client: TestClient, samples: list[Path], name: str
) -> None:
    num_refused = 0
    for path in samples:
        with path.open("rb") as file:
            response = client.post("/predict", params={"model": name}, files={"image": file})
        body = response.json()
        if body["decision"]["action"] == "reject":
            num_refused += 1
            assert body["probabilities"] is body["heatmap"] is None
            continue
        assert sum(body["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        overlay = Image.open(io.BytesIO(base64.b64decode(body["heatmap"]["overlay"])))
        assert overlay.size == (600, 450)
        assert overlay.format == "PNG"
    # One in twenty by construction; these are a few.
    assert num_refused <= len(samples) / 5


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
