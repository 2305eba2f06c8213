"""Settings come from the environment, are checked, and stay as they are."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from app.settings import Settings


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", "/srv/models")
    monkeypatch.setenv("MAX_IMAGE_BYTES", "5000000")
    monkeypatch.setenv("MIN_IMAGE_SIDE", "200")
    settings = Settings()
    assert settings.models_dir == Path("/srv/models")
    assert settings.image_limits().max_bytes == 5_000_000
    assert settings.image_limits().min_side_pixels == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_IMAGE_BYTES", "0"), ("IMAGE_WORKERS", "0"), ("LOG_LEVEL", "loud")],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dicom_queue_dir": "queue"}, "needs one place"),
        (
            {
                "dicom_queue_dir": "queue",
                "dicom_store_url": "http://archive/dicom-web",
                "dicom_store_peer": "ARCHIVE@host:104",
            },
            "needs one place",
        ),
        ({"dicom_store_url": "http://archive/dicom-web"}, "need DICOM_QUEUE_DIR"),
        ({"dicom_listen_port": 11112}, "need DICOM_QUEUE_DIR"),
        ({"dicom_queue_dir": "queue", "dicom_store_peer": "ARCHIVE"}, "dicom_store_peer"),
        ({"dicom_queue_dir": "queue", "dicom_store_url": "http://me:pw@archive"}, "dicom_store"),
    ],
)
def test_a_dicom_worker_needs_a_queue_and_one_archive(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**settings)


def test_the_archives_password_is_shown_nowhere() -> None:
    settings = Settings(
        dicom_queue_dir=Path("queue"),
        dicom_store_url="https://archive/dicom-web",
        dicom_store_authorization=SecretStr("Basic c2VjcmV0"),
    )
    assert "c2VjcmV0" not in repr(settings) + settings.model_dump_json()


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.log_level = "DEBUG"  # type: ignore[misc]
