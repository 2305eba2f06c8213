"""A replica serves what the service was deployed with, or nothing."""

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.access.keys import create_key
from app.access.scopes import Scope
from app.domain.errors import ArtifactError, ManifestError
from app.inference.registry import load_registry
from app.inference.release import loaded_release, read_release, require_release
from app.inference.tensorflow_engine import TensorFlowEngine
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY
from tests.tiny_artifact import write_tiny_artifact


def test_a_folder_is_its_own_release(tiny_models: Path) -> None:
    release = read_release(tiny_models)
    assert set(release) == {f"{PLAIN_MODEL}@1", f"{PLAIN_MODEL}@2", f"{ATTENTION_MODEL}@1"}
    shadow = f"{PLAIN_MODEL}@1"
    require_release(loaded_release(load_registry(tiny_models, None, TensorFlowEngine)), release)
    registry = load_registry(tiny_models, None, TensorFlowEngine, shadow_name=shadow)
    require_release(loaded_release(registry), release)


def test_the_committed_ensemble_belongs_to_the_release() -> None:
    assert any(name.startswith("ensemble@") for name in read_release(REPOSITORY / "models"))


def test_models_that_are_more_fewer_or_others_are_named(own_models: Path) -> None:
    release = read_release(own_models)

    def refused() -> str:
        with pytest.raises(ArtifactError, match="deploy the service anew") as error:
            require_release(
                loaded_release(load_registry(own_models, None, TensorFlowEngine)), release
            )
        return str(error.value).partition("deployed with: ")[2].partition(" differ")[0]

    more = write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
    assert refused() == f"{PLAIN_MODEL}@3"
    shutil.rmtree(more)
    shutil.rmtree(own_models / PLAIN_MODEL / "2")
    assert refused() == f"{PLAIN_MODEL}@2"
    write_tiny_artifact(own_models, PLAIN_MODEL, version=2, seed=8)
    assert refused() == f"{PLAIN_MODEL}@2"


def test_no_models_are_no_release(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="MODELS_DIR"):
        read_release(tmp_path)
    (tmp_path / "a" / "1").mkdir(parents=True)
    (tmp_path / "a" / "1" / "manifest.json").write_text("{")
    with pytest.raises(ManifestError):
        read_release(tmp_path)


def test_a_replica_refuses_others_at_the_start_and_at_a_reload(
    own_models: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.jsonl"
    key = create_key(keys, "operator", [Scope.ADMIN, Scope.FEEDBACK], None)
    settings = Settings(models_dir=own_models, api_keys_file=keys, audit_dir=tmp_path / "audit")
    release = read_release(own_models)
    with TestClient(create_app(settings, release)) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert client.post("/admin/reload").status_code == 200
        # The answer may be in another replica's record.
        assert client.post("/feedback/id", json={}).json()["type"].endswith("not-found")
        assert client.get("/viewer/settings.json").json()["feedback"] is False
        write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
        refused = client.post("/admin/reload")
        assert (refused.status_code, refused.json()["type"]) == (
            409,
            "urn:dermhybrid:problem:artifact",
        )
        assert client.get("/health/ready").status_code == 200
    with (
        pytest.raises(ArtifactError, match="tiny_plain@3"),
        TestClient(create_app(settings, release)),
    ):
        pass
