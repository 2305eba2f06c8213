"""The service starts with signed models alone, and goes on with them if a reload brings others."""

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient

from app.access.keys import create_key
from app.access.scopes import Scope
from app.domain.errors import ArtifactSignatureError
from app.inference.signatures import signature_path
from app.main import create_app
from app.settings import Settings
from tests.signing import public_pem, sign_everything
from tests.tiny_artifact import write_tiny_artifact

KEY, NEXT_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture
def models(ruled_models: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(ruled_models, tmp_path / "models")
    sign_everything(copy, KEY)
    return copy


@pytest.fixture
def settings(models: Path, tmp_path: Path) -> Settings:
    (tmp_path / "trusted.pem").write_bytes(public_pem(KEY))
    return Settings(
        models_dir=models,
        runtime="openvino",
        default_model="ensemble",
        model_public_keys=tmp_path / "trusted.pem",
        api_keys_file=tmp_path / "keys.jsonl",
    )


@pytest.mark.parametrize("signed", ["ensemble.json", "light/1/manifest.json"])
def test_an_unsigned_model_or_ensemble_stops_the_start(
    settings: Settings, models: Path, tmp_path: Path, signed: str
) -> None:
    create_key(tmp_path / "keys.jsonl", "any", [Scope.PREDICT], None)
    signature_path(models / signed).unlink()
    with (
        pytest.raises(ArtifactSignatureError, match=rf"{signed}\.sig: missing"),
        TestClient(create_app(settings)),
    ):
        pass


def test_a_reload_takes_signed_models_alone_and_leaves_the_old_ones_serving(
    settings: Settings, models: Path, tmp_path: Path, lesion_png: bytes
) -> None:
    scopes = [Scope.ADMIN, Scope.PREDICT]
    key = create_key(tmp_path / "keys.jsonl", "admin", scopes, None)
    trusted = settings.model_public_keys
    assert trusted is not None
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client:

        def refused(words: str) -> None:
            answer = client.post("/admin/reload")
            assert answer.status_code == 409
            assert answer.json()["type"] == "urn:dermhybrid:problem:artifact-signature"
            assert words in answer.json()["detail"]
            served = client.post("/predict", files={"image": lesion_png})
            assert served.status_code == 200
            assert served.json()["model"]["name"] == "ensemble"
            assert client.get("/health/ready").status_code == 200

        assert client.post("/admin/reload").status_code == 200
        # A new version that nobody has accepted yet, then one that somebody else has.
        manifest = write_tiny_artifact(models, "light", version=2, seed=9) / "manifest.json"
        refused("light/2/manifest.json.sig: missing")
        signature_path(manifest).write_bytes(NEXT_KEY.sign(manifest.read_bytes()))
        refused("of none of the 1 keys")
        signature_path(manifest).write_bytes(KEY.sign(manifest.read_bytes()))
        assert client.post("/admin/reload").status_code == 200
        # Models in service are checked again, though their copies in memory are good.
        ensemble = models / "ensemble.json"
        kept = ensemble.read_bytes()
        ensemble.write_bytes(kept + b"\n")
        refused("ensemble.json.sig: is of none")
        ensemble.write_bytes(kept)
        # Exchange the key: both count, everything is signed anew, the old one goes.
        trusted.write_bytes(public_pem(KEY, NEXT_KEY))
        assert client.post("/admin/reload").status_code == 200
        trusted.write_bytes(public_pem(NEXT_KEY))
        refused("of none of the 1 keys")
        sign_everything(models, NEXT_KEY)
        assert client.post("/admin/reload").status_code == 200
        trusted.unlink()
        refused("cannot be read")
