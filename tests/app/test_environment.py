"""What the environment says is taken, or refused in sentences without a value."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.domain.errors import SettingsRefusedError
from app.environment import count_slips, find_slips, read_settings
from app.settings import Settings
from tests.conftest import REPOSITORY

MARKER = "c2VjcmV0OnBhc3N3b3Jk"

OTHERS = """
PATH HOME HOST HOSTNAME PORT USER PWD LANG LC_ALL TERM SHELL SHLVL TZ COLUMNS LINES DEBUG CI
PYTHONPATH PYTHONUNBUFFERED VIRTUAL_ENV GPG_KEY PYTHON_VERSION PYTHON_SHA256 UVICORN_PORT
HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR SSL_CERTIFICATE SSL_PRIVATE_KEY
REQUESTS_CA_BUNDLE
OMP_NUM_THREADS TF_CPP_MIN_LOG_LEVEL TF_ENABLE_ONEDNN_OPTS CUDA_VISIBLE_DEVICES
KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS KUBERNETES_PORT
KUBERNETES_PORT_443_TCP KUBERNETES_PORT_443_TCP_ADDR KUBERNETES_PORT_443_TCP_PORT
KUBERNETES_PORT_443_TCP_PROTO DERMHYBRID_SERVICE_HOST DERMHYBRID_SERVICE_PORT DERMHYBRID_PORT
DERMHYBRID_SERVICE_PORT_HTTP DERMHYBRID_SERVICE_PORT_OPERATIONS DERMHYBRID_PORT_80_TCP
DERMHYBRID_PORT_80_TCP_ADDR DERMHYBRID_PORT_80_TCP_PORT DERMHYBRID_OPERATIONS_PORT
DICOM_SERVICE_HOST DICOM_PORT FHIR_SERVICE_HOST FHIR_SERVICE_PORT ORTHANC_PORT
POD_NAME POD_IP NODE_NAME NAMESPACE DERMHYBRID_URL DERMHYBRID_KEY RAY_ADDRESS RAY_JOB_ID
OTEL_SERVICE_NAME OTEL_LOG_LEVEL OTEL_SDK_DISABLED OTEL_RESOURCE_ATTRIBUTES
OTEL_TRACES_EXPORTER OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TIMEOUT
OTEL_EXPORTER_OTLP_INSECURE OTEL_EXPORTER_OTLP_CERTIFICATE OTEL_EXPORTER_OTLP_COMPRESSION
OTEL_EXPORTER_OTLP_LOGS_ENDPOINT OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
OTEL_EXPORTER_OTLP_LOGS_PROTOCOL OTEL_EXPORTER_OTLP_TRACES_PROTOCOL
MODEL_NAME MODEL_PATH DATA_DIR LOG_DIR LOG_FORMAT RUN_TIME RUNTIMES
"""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AUDIT_DIRR", "AUDIT_DIR"),
        ("audit_dri", "AUDIT_DIR"),
        ("QUOTA_PER_MINUT", "QUOTA_PER_MINUTE"),
        ("MODEL_PUBLIC_KEYZ", "MODEL_PUBLIC_KEYS"),
        ("MODELS_PUBLIC_KEY", "MODEL_PUBLIC_KEYS"),
        ("API_KEY_FILE", "API_KEYS_FILE"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ],
)
def test_a_misspelt_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, MARKER)
    with pytest.raises(SettingsRefusedError) as refused:
        read_settings()
    assert str(refused.value).startswith(f"{name}: there is no such setting, and {meant} is")
    assert MARKER not in str(refused.value)


def test_settings_are_no_slips_of_each_other_in_any_case() -> None:
    names = [name for field in Settings.model_fields for name in (field, field.upper())]
    assert list(find_slips(names)) == []


def test_names_of_others_pass() -> None:
    assert list(find_slips(OTHERS.split())) == []


@pytest.mark.parametrize(
    ("given", "slips"),
    [
        ("QUOTA_BURST", 0),
        ("QUOTA_BURSTS", 1),
        ("QUOTA_BRST", 1),
        ("QUOTE_BURST", 1),
        ("QUOTA_BUSRT", 1),
        ("UQOTA_BUSRT", 2),
        ("BURST", 6),
        ("", 11),
    ],
)
def test_slips_are_counted(given: str, slips: int) -> None:
    assert count_slips(given, "QUOTA_BURST") == slips


def test_every_refused_setting_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_IMAGE_BYTES", "many")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    monkeypatch.setenv("AUDIT_DIRR", "audit")
    with pytest.raises(SettingsRefusedError) as refused:
        read_settings()
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "AUDIT_DIRR",
        "MAX_IMAGE_BYTES",
        "LOG_LEVEL",
    ]
    assert "valid integer" in lines[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DICOM_STORE_AUTHORIZATION", f"Basic {MARKER}\n"),
        ("DICOM_STORE_AUTHORIZATION", f"Basic\r\n{MARKER}"),
        ("DICOM_STORE_AUTHORIZATION", ""),
        ("DICOM_STORE_PEER", MARKER),
        ("FHIR_SERVER_URL", f"https://user:{MARKER}@fhir.example/"),
        ("FORWARDED_ALLOW_IPS", MARKER),
        ("MAX_IMAGE_BYTES", MARKER),
        ("QUOTA_PER_MINUTE", MARKER),
        ("AUTHENTICATION", MARKER),
        ("SMART_ISSUERS", f"https://{MARKER.lower()}:99999"),
        ("SMART_ISSUERS", f"https://user:{MARKER}@ehr.example"),
        ("VIEWER_FRAME_ANCESTORS", f"https://{MARKER.lower()}.example:0443"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://collector/?key={MARKER}"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_setting_and_not_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    if name == "SMART_ISSUERS":
        monkeypatch.setenv("SMART_CLIENT_ID", "page")
    with pytest.raises(SettingsRefusedError) as refused:
        read_settings()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{name}: ")
    assert MARKER.lower() not in line.lower()


@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("predict", "a.png"), ("dicom",)])
def test_commands_end_with_a_sentence_and_without_the_archives_password(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    if arguments == ("dicom",):
        photograph = tmp_path / "photograph.dcm"
        photograph.touch()
        arguments = ("dicom", str(photograph), "--output", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        env={
            "PYTHONPATH": str(REPOSITORY),
            "DICOM_QUEUE_DIR": str(tmp_path / "queue"),
            "DICOM_STORE_URL": "http://archive.hospital/dicom-web",
            "DICOM_STORE_AUTHORIZATION": f"Basic {MARKER}",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("DICOM_STORE_URL: expected https")
    assert "DICOM_STORE_PLAINTEXT=true" in line


def test_errors_of_the_settings_show_no_value() -> None:
    with pytest.raises(ValueError, match="DICOM_STORE_URL: expected https") as refused:
        Settings.model_validate(
            {
                "dicom_queue_dir": "queue",
                "dicom_store_url": "http://archive/",
                "dicom_store_authorization": MARKER,
            }
        )
    assert MARKER not in str(refused.value) + repr(refused.value)
