"""docker-compose.yml: its parts fit one another, and the proxy and the archive do their part.

Caddy and Orthanc are the real ones, with the configurations that compose gives them, on free ports
of this machine. The images are test_image's.
"""

import io
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pydicom
import pytest
import yaml

from app.domain.images import DEFAULT_LIMITS
from app.settings import Settings
from tests.certificates import make_certificate
from tests.conftest import REPOSITORY
from tests.dicom_photographs import make_dataset, to_bytes
from tests.orthanc import run_orthanc
from tests.ports import free_port
from tests.programs import require_program
from tests.service_process import openvino_service, service_process

COMPOSE: dict[str, Any] = yaml.safe_load(
    (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: dict[str, str] = SERVICES["dermhybrid"]["environment"]
CADDYFILE = REPOSITORY / "deploy" / "caddy" / "Caddyfile"
READ_HEADER_SECONDS = 10
"""As the Caddyfile says."""


@contextmanager
def proxy(folder: Path, upstream: str, **environment: str) -> Iterator[str]:
    """Caddy before `http://127.0.0.1:PORT`; its address."""
    port = free_port()
    program = require_program("caddy")
    own = {
        "SITE_ADDRESS": f"https://localhost:{port}",
        "UPSTREAM": upstream.removeprefix("http://"),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    log = folder / "caddy.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"],
            env={**os.environ, **own, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                assert process.poll() is None, log.read_text()
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.1)
            yield own["SITE_ADDRESS"]
        finally:
            process.terminate()
            process.wait(timeout=30)


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def service(
    tiny_models: Path, audit: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("service") / "log"
    settings = {"AUDIT_DIR": str(audit), "OPERATIONS_PORT": str(free_port())}
    with openvino_service(tiny_models, log, **settings) as (_, address):
        yield address


@pytest.fixture(scope="module")
def client(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Of the proxy, trusting its own authority."""
    folder = tmp_path_factory.mktemp("caddy")
    with proxy(folder, service) as address:
        root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        with httpx2.Client(base_url=address, verify=trusting(root), timeout=60) as client:
            yield client


def test_what_is_asked_through_the_proxy_is_answered_and_recorded_for_who_asked(
    client: httpx2.Client, service: str, audit: Path, lesion_png: bytes
) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9"}
    answer = client.post("/predict", files={"image": lesion_png}, headers=forged)
    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert answer.headers["strict-transport-security"] == "max-age=0"
    assert answer.headers["content-security-policy"]
    direct = httpx2.post(f"{service}/predict", files={"image": lesion_png})
    assert answer.json()["probabilities"] == direct.json()["probabilities"]
    records = [
        json.loads(line) for path in audit.glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    callers = {r["request_id"]: r["caller"] for r in records if "request_id" in r}
    assert callers[answer.json()["request_id"]] == "127.0.0.1"


@pytest.mark.parametrize(
    ("trusted", "caller"),
    [
        ("10.0.0.1, 127.0.0.0/8", "203.0.113.9"),
        ("", "127.0.0.1"),
    ],
)
def test_only_a_proxy_that_is_named_says_who_calls(
    trusted: str, caller: str, tiny_models: Path, tmp_path: Path, lesion_png: bytes
) -> None:
    settings = {"AUDIT_DIR": str(tmp_path / "audit"), "FORWARDED_ALLOW_IPS": trusted}
    with openvino_service(tiny_models, tmp_path / "log", **settings) as (_, address):
        headers = {"X-Forwarded-For": "203.0.113.9"}
        answer = httpx2.post(f"{address}/predict", files={"image": lesion_png}, headers=headers)
        assert answer.status_code == 200
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    assert f'"{caller}"' in path.read_text()


@pytest.mark.parametrize("path", ["/metrics", "/admin/reload"])
def test_operators_pages_are_not_behind_the_proxy(client: httpx2.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_answers_of_a_batch_come_one_by_one(client: httpx2.Client, lesion_png: bytes) -> None:
    """Behind a proxy that buffers, the first line came with the last one."""
    images = [("image", (f"{n}.png", lesion_png)) for n in range(32)]
    with client.stream("POST", "/predict/batch", files=images) as answer:
        assert answer.status_code == 200
        pieces = [piece for piece in answer.iter_raw() if piece]
    assert b"".join(pieces).count(b"\n") == 32
    assert pieces[0].count(b"\n") <= Settings.model_fields["max_batch_size"].default


def test_a_body_too_large_is_refused_in_words(client: httpx2.Client) -> None:
    most = Settings.model_fields["max_batch_bytes"].default
    chunks = (b"0" * 1_000_000 for _ in range(200))
    assert most < 160_000_000  # of the Caddyfile: the service's own refusal comes first
    assert most > DEFAULT_LIMITS.max_bytes
    answer = client.post("/predict", content=chunks, headers={"Content-Type": "image/png"})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_without_the_service_it_says_so(tmp_path: Path) -> None:
    with proxy(tmp_path, f"http://127.0.0.1:{free_port()}") as address:
        root = tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        answer = httpx2.get(f"{address}/models", verify=trusting(root))
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 502


def test_the_certificate_may_be_the_hospitals(service: str, tmp_path: Path) -> None:
    crt, key = make_certificate(tmp_path, "hospital")
    environment = {"TLS_FILES": f"{crt} {key}", "HSTS_SECONDS": "60"}
    with proxy(tmp_path, service, **environment) as address:
        answer = httpx2.get(f"{address}/models", verify=trusting(crt))
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=60"


def test_a_head_that_comes_slowly_is_given_up(client: httpx2.Client) -> None:
    host, port = client.base_url.host, client.base_url.port
    assert port
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    begun = time.monotonic()
    with (
        socket.create_connection((host, port)) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        tls.settimeout(1)
        tls.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n")
        while True:
            assert time.monotonic() - begun < READ_HEADER_SECONDS * 3
            try:
                if not tls.recv(1000):
                    break
            except TimeoutError:
                tls.sendall(b"A: b\r\n")
            except OSError:
                break


def test_the_archive_of_compose_gets_its_results(tiny_models: Path, tmp_path: Path) -> None:
    photograph = make_dataset()
    file = tmp_path / "photograph.dcm"
    file.write_bytes(to_bytes(photograph))
    port = free_port()
    with run_orthanc(
        tmp_path, service_url=f"http://127.0.0.1:{port}", name="compose.json"
    ) as orthanc:
        settings = {
            "MODELS_DIR": str(tiny_models),
            "RUNTIME": "openvino",
            **{name: value for name, value in SETTINGS.items() if name.startswith("DICOM_")},
            "DICOM_QUEUE_DIR": str(tmp_path / "queue"),
            "DICOM_STORE_URL": SETTINGS["DICOM_STORE_URL"].replace(
                "http://orthanc:8042", orthanc.url
            ),
        }
        with service_process(tmp_path / "log", settings, port=port):
            storescu = require_program("storescu")
            command = [storescu, "-R", "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom_port)]
            subprocess.run([*command, file], check=True)
            give_up = time.monotonic() + 60
            while not orthanc.download(photograph.StudyInstanceUID, "SR"):
                assert time.monotonic() < give_up, (tmp_path / "log").read_text()
                time.sleep(0.2)
            (report,) = orthanc.download(photograph.StudyInstanceUID, "SR")
    assert pydicom.dcmread(io.BytesIO(report)).PatientID == photograph.PatientID


def test_only_this_machine_reaches_what_asks_for_no_credential() -> None:
    assert SETTINGS["AUTHENTICATION"] == "off"
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_addresses_in_it_fit_one_another() -> None:
    proxy_address = SERVICES["proxy"]["networks"]["default"]["ipv4_address"]
    assert SETTINGS["FORWARDED_ALLOW_IPS"] == proxy_address
    assert "{$UPSTREAM:dermhybrid:8000}" in CADDYFILE.read_text(encoding="utf-8")
    assert SERVICES["orthanc"]["environment"]["DERMHYBRID_URL"] == "http://dermhybrid:8000"
    archive = json.loads((REPOSITORY / "deploy/orthanc/compose.json").read_text(encoding="utf-8"))
    root = archive["DicomWeb"]["Root"].strip("/")
    assert SETTINGS["DICOM_STORE_URL"] == f"http://orthanc:{archive['HttpPort']}/{root}"


@pytest.mark.parametrize("name", SERVICES)
def test_each_part_is_bounded(name: str) -> None:
    said = SERVICES[name]
    assert said["read_only"]
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert said["mem_limit"]
    assert said["pids_limit"]


def test_the_service_takes_its_settings_and_the_proxy_outlives_it() -> None:
    known = {name.upper(): value for name, value in SETTINGS.items()}
    assert set(map(str.lower, known)) <= set(Settings.model_fields)
    seconds = {
        name: int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        for name in ("dermhybrid", "proxy")
    }
    grace = Settings.model_fields["shutdown_grace_seconds"].default
    assert grace < seconds["dermhybrid"] < seconds["proxy"]
