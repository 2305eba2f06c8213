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
    ("threads", "workers", "expected"),
    [(1, None, 2), (4, None, 4), (64, None, 8), (64, 20, 20), (4, 1, 1)],
)
def test_pictures_are_read_beside_each_other_as_the_processors_allow(
    threads: int, workers: int | None, expected: int
) -> None:
    settings = Settings(model_threads=threads, image_workers=workers)
    assert settings.num_image_workers() == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dicom_queue_dir": "queue"}, "needs one place"),
        (
            {
                "dicom_queue_dir": "queue",
                "dicom_store_url": "https://archive/dicom-web",
                "dicom_store_peer": "ARCHIVE@host:104",
            },
            "needs one place",
        ),
        ({"dicom_store_url": "https://archive/dicom-web"}, "need DICOM_QUEUE_DIR"),
        ({"dicom_listen_port": 11112}, "need DICOM_QUEUE_DIR"),
        ({"dicom_queue_dir": "queue", "dicom_store_peer": "ARCHIVE"}, "dicom_store_peer"),
        ({"dicom_queue_dir": "queue", "dicom_store_peer": "PACS@10.0.0.5:104"}, "has no TLS"),
        ({"dicom_queue_dir": "queue", "dicom_store_url": "https://me:pw@archive"}, "without user"),
        ({"dicom_queue_dir": "queue", "dicom_store_url": "http://archive/"}, "expected https"),
        ({"dicom_calling_aes": "CAMERA;PACS\\X"}, "dicom_calling_aes"),
        ({"dicom_calling_aes": "LONGER_THAN_16_CHARS"}, "dicom_calling_aes"),
        ({"dicom_calling_aes": "CAMERA,,PACS"}, "dicom_calling_aes"),
    ],
)
def test_a_dicom_worker_needs_a_queue_and_one_archive(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dicom_tls_certificate": "a.crt"}, "both of DICOM_TLS_CERTIFICATE"),
        ({"dicom_tls_client_ca": "ca.crt"}, "needs DICOM_TLS_CERTIFICATE"),
    ],
)
def test_tls_of_the_storage_scp_is_whole_or_not_there(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**settings)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8042/dicom-web", "https://archive/rs"])
def test_an_archive_is_this_machine_or_encrypted_or_said_to_be_neither(url: str) -> None:
    queue = Path("queue")
    assert Settings(dicom_queue_dir=queue, dicom_store_url=url)
    meant = Settings(
        dicom_queue_dir=queue,
        dicom_store_url="http://archive/rs",
        dicom_store_plaintext=True,
    )
    assert str(meant.dicom_store_url) == "http://archive/rs"
    peer = "PACS@10.0.0.5:104"
    meant = Settings(dicom_queue_dir=queue, dicom_store_peer=peer, dicom_store_plaintext=True)
    assert meant.dicom_store_peer == peer


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"audit_required": True}, "AUDIT_REQUIRED=true needs AUDIT_DIR"),
        ({"quota_burst": 5}, "QUOTA_BURST is of no use without"),
        ({"dicom_calling_aes": "CAMERA"}, "DICOM_CALLING_AES is of no use without"),
        ({"request_timeout_seconds": 121}, "is above MAX_REQUEST_TIMEOUT_SECONDS"),
        ({"dicom_queue_dir": "queue", "dicom_store_peer": "A@localhost:65536"}, "at most 65535"),
    ],
)
def test_what_would_do_nothing_of_what_it_says_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**settings)


@pytest.mark.parametrize(
    "name", ["AUDIT_DIR", "DICOM_QUEUE_DIR", "MODELS_DIR", "FHIR_CLIENT_ID", "FHIR_KEY_ID"]
)
def test_an_empty_path_or_identifier_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("name", ["SHUTDOWN_GRACE_SECONDS", "CLIENT_TIMEOUT_SECONDS"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_time_is_finite(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_callers_are_separated_by_commas() -> None:
    assert Settings().dicom_callers == ()
    listening: dict[str, Any] = {
        "dicom_queue_dir": "queue",
        "dicom_store_peer": "PACS@localhost:104",
        "dicom_listen_port": 11112,
    }
    assert Settings(**listening, dicom_calling_aes="CAMERA-1, PACS,OCT").dicom_callers == (
        "CAMERA-1",
        "PACS",
        "OCT",
    )


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"OAUTH_ISSUER": "https://example.org"}, "all of OAUTH_ISSUER"),
        ({"TLS_CERTIFICATE": "server.crt"}, "both of TLS_CERTIFICATE"),
        ({"AUTHENTICATION": "required"}, "needs API_KEYS_FILE"),
        ({"AUTHENTICATION": "off", "API_KEYS_FILE": "keys"}, "contradicts"),
        ({"AUTHENTICATION": "sometimes"}, "authentication"),
        ({"FORWARDED_ALLOW_IPS": "proxy.example"}, "forwarded_allow_ips"),
        ({"FORWARDED_ALLOW_IPS": "*"}, "forwarded_allow_ips"),
    ],
)
def test_contradictions_about_who_may_call_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=message):
        Settings()


ACCESS = {
    "FHIR_SERVER_URL": "https://fhir.hospital.example/r4",
    "FHIR_TOKEN_URL": "https://login.hospital.example/token",
    "FHIR_CLIENT_ID": "dermhybrid",
    "FHIR_PRIVATE_KEY_FILE": "/run/secrets/fhir.pem",
    "FHIR_KEY_ID": "key-1",
}


@pytest.mark.parametrize("missing", [*ACCESS, None])
def test_access_to_the_fhir_server_is_whole_or_not_there(
    monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    for name, value in ACCESS.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    if missing is None:
        assert str(Settings().fhir_server_url) == ACCESS["FHIR_SERVER_URL"]
    else:
        with pytest.raises(ValidationError, match=missing):
            Settings()


@pytest.mark.parametrize(
    "url",
    [
        "http://fhir.hospital.example/r4",
        "https://user:password@fhir.hospital.example/",
        "https://fhir.hospital.example/?key=1",
        "ftp://127.0.0.1/",
        "fhir",
    ],
)
def test_patients_data_go_to_no_unsafe_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FHIR_SERVER_URL", url)
    with pytest.raises(ValidationError, match="fhir_server_url"):
        Settings()
    monkeypatch.setenv("FHIR_SERVER_URL", "http://127.0.0.1:8080/fhir")
    assert Settings().fhir_server_url is not None
