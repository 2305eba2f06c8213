"""Logs are JSON, carry the request id, and no patient data."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from PIL import Image

from app.access.keys import create_key
from app.access.scopes import Scope
from app.logs import configure_logging, new_request_id
from app.main import create_app
from app.settings import Settings
from tests.signing import public_pem, sign_everything
from training.synthetic import draw_lesion

MARKER = "PATIENT^MARKER"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the service writes to its log."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configure_logging("DEBUG")
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("app").setLevel(logging.NOTSET)


def image_with_markers() -> bytes:
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x9286):  # ImageDescription, Artist, UserComment
        exif[tag] = MARKER
    buffer = io.BytesIO()
    picture = Image.fromarray(draw_lesion(1, 1, 300, 200))
    picture.save(buffer, "JPEG", exif=exif, comment=MARKER.encode(), xmp=MARKER.encode())
    return buffer.getvalue()


def test_request_line_has_the_id_and_nothing_of_the_patient(
    client: TestClient, log: io.StringIO
) -> None:
    good, bad = image_with_markers(), image_with_markers()[:700]
    assert MARKER.encode() in bad
    for image in (good, bad):
        client.post(
            "/predict",
            files={"image": (f"{MARKER}.jpg", image)},
            params={"patient": MARKER},
            headers={"x-request-id": "request-1", "user-agent": MARKER, "referer": MARKER},
        )
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [200, 422]
    assert {line["request_id"] for line in requests} == {"request-1"}
    assert {line["route"] for line in requests} == {"/predict"}
    assert all(line["timestamp"].endswith("+00:00") for line in requests)
    assert MARKER not in log.getvalue()
    assert MARKER not in client.get("/metrics").text


def test_answers_hold_nothing_of_the_metadata(client: TestClient) -> None:
    response = client.post("/predict", files={"image": (f"{MARKER}.jpg", image_with_markers())})
    assert response.status_code == 200
    assert MARKER not in response.text


def test_ready_says_which_protections_are_in_force(
    tmp_path: Path, own_models: Path, log: io.StringIO
) -> None:
    keys = tmp_path / "keys.jsonl"
    create_key(keys, "scanner", [Scope.PREDICT], None)
    signer, trusted = Ed25519PrivateKey.generate(), tmp_path / "trusted.pem"
    sign_everything(own_models, signer)
    trusted.write_bytes(public_pem(signer))
    protected = {
        "api_keys_file": keys,
        "audit_dir": tmp_path / "audit",
        "model_public_keys": trusted,
        "quota_per_minute": 60,
    }
    for given, in_force in (({}, False), (protected, True)):
        settings = Settings.model_validate(
            {"models_dir": own_models, "runtime": "openvino", **given}
        )
        log.seek(0)
        log.truncate()
        with TestClient(create_app(settings)):
            pass
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        (ready,) = [line for line in lines if line["message"] == "ready"]
        names = ("authentication", "signatures", "quota", "audit")
        assert [ready[name] for name in names] == [in_force] * 4


@pytest.mark.parametrize("proposed", ["a", "A-1._", "x" * 64])
def test_harmless_request_ids_are_kept(proposed: str) -> None:
    assert new_request_id(proposed) == proposed


@pytest.mark.parametrize("proposed", [None, "", "x" * 65, "a b", "a\nb", "Müller", "<script>"])
def test_other_request_ids_are_replaced(proposed: str | None) -> None:
    first, second = new_request_id(proposed), new_request_id(proposed)
    assert first != second
    assert len(first) == 32
