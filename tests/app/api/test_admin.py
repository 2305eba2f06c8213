"""`/admin` is there only where it was set up, and only for who has the token."""

from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.conftest import PLAIN_MODEL
from tests.tiny_artifact import write_tiny_artifact

TOKEN = token_hex(32)


def test_without_a_token_in_the_settings_there_is_no_administration(client: TestClient) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert client.post("/admin/reload", headers=headers).status_code == 404
    assert "/admin/reload" not in client.get("/openapi.json").json()["paths"]


def test_reload_needs_the_token_and_says_why_a_model_is_refused(own_models: Path) -> None:
    settings = Settings(
        models_dir=own_models,
        default_model=PLAIN_MODEL,
        admin_token_sha256=sha256(TOKEN.encode()).hexdigest(),
    )
    right = {"authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings)) as client:
        write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
        for wrong in ({}, {"authorization": "Bearer guess"}, {"authorization": f"Basic {TOKEN}"}):
            refused = client.post("/admin/reload", headers=wrong)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in refused.text
        assert client.get(f"/models/{PLAIN_MODEL}").json()["version"] == 2

        served = client.post("/admin/reload", headers=right)
        assert served.status_code == 200
        assert [m["version"] for m in served.json()["models"] if m["default"]] == [3]
        assert client.get(f"/models/{PLAIN_MODEL}").json()["version"] == 3

        (own_models / PLAIN_MODEL / "1" / "golden_input.png").unlink()
        refused = client.post("/admin/reload", headers=right)
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:dermhybrid:problem:artifact-incomplete"
        assert "golden_input.png" in refused.json()["detail"]
        assert client.get(f"/models/{PLAIN_MODEL}@1").status_code == 200


@pytest.mark.parametrize("digest", ["", "secret", "A" * 64, "0" * 63])
def test_the_setting_takes_a_digest_alone(digest: str) -> None:
    with pytest.raises(ValueError, match="admin_token_sha256"):
        Settings(admin_token_sha256=digest)
