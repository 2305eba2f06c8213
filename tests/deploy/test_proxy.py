"""Caddy before the service, with the configuration that docker-compose.yml gives it.

The program is Debian's, on free ports of this machine.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from app.access.keys import create_key
from app.access.scopes import Scope
from app.settings import Settings
from tests.certificates import make_certificate
from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.programs import require_program
from tests.service_process import openvino_service

CADDYFILE = REPOSITORY / "deploy" / "caddy" / "Caddyfile"
PATIENCE_SECONDS = 60


@contextmanager
def proxy(folder: Path, upstream: str, **environment: str) -> Iterator[str]:
    """Caddy before `http://127.0.0.1:PORT`; its address, when it has its certificate."""
    port = free_port()
    program = require_program("caddy")
    own = {
        "SITE_PORT": str(port),
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
                    encrypted(port).close()
                    break
                except (ConnectionRefusedError, ssl.SSLError):
                    time.sleep(0.1)
            yield f"https://localhost:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def encrypted(port: int) -> ssl.SSLSocket:
    """A line to the proxy, whoever it says it is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port))
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def trusting_own(folder: Path) -> ssl.SSLContext:
    """Trusting the authority that a proxy made for itself."""
    root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    return ssl.create_default_context(cafile=root)


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
    """Of the proxy, from an address that is not the proxy's own."""
    folder = tmp_path_factory.mktemp("caddy")
    with proxy(folder, service) as address:
        transport = httpx2.HTTPTransport(verify=trusting_own(folder), local_address="127.0.0.5")
        with httpx2.Client(base_url=address, transport=transport, timeout=60) as client:
            yield client


def callers(audit: Path) -> dict[str, str]:
    """By request."""
    lines = [line for path in audit.glob("*.jsonl") for line in path.read_text().splitlines()]
    return {record["request_id"]: record["caller"] for record in map(json.loads, lines)}


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
    assert callers(audit)[answer.json()["request_id"]] == "127.0.0.5"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "caller"),
    [
        ("10.0.0.1, 127.0.0.0/8", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1, 127.0.0.0/8", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.1, 127.0.0.0/8", "Ada Lovelace", "unknown"),
        ("", "203.0.113.9", "127.0.0.1"),
    ],
)
def test_only_a_proxy_that_is_named_says_who_calls(
    trusted: str, forwarded: str, caller: str, tiny_models: Path, tmp_path: Path, lesion_png: bytes
) -> None:
    settings = {"AUDIT_DIR": str(tmp_path / "audit"), "FORWARDED_ALLOW_IPS": trusted}
    with openvino_service(tiny_models, tmp_path / "log", **settings) as (_, address):
        headers = {"X-Forwarded-For": forwarded}
        answer = httpx2.post(f"{address}/predict", files={"image": lesion_png}, headers=headers)
        assert answer.status_code == 200
    assert callers(tmp_path / "audit") == {answer.json()["request_id"]: caller}


def test_operators_pages_are_not_behind_the_proxy(tiny_models: Path, tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.jsonl", "operator", list(Scope), None)
    port = free_port()
    settings = {"API_KEYS_FILE": str(tmp_path / "keys.jsonl"), "OPERATIONS_PORT": str(port)}
    with (
        openvino_service(tiny_models, tmp_path / "log", **settings) as (_, service),
        proxy(tmp_path, service) as address,
        httpx2.Client(
            verify=trusting_own(tmp_path), headers={"Authorization": f"Bearer {key}"}
        ) as operator,
    ):
        for method, path in (("GET", "/metrics"), ("POST", "/admin/reload")):
            assert operator.request(method, f"http://127.0.0.1:{port}{path}").status_code == 200
            assert operator.request(method, f"{address}{path}").status_code == 404
        assert operator.get(f"{address}/models").status_code == 200


def test_answers_of_a_batch_come_one_by_one(client: httpx2.Client, lesion_png: bytes) -> None:
    """Behind a proxy that buffers, the first line came with the last one."""
    images = [("image", (f"{n}.png", lesion_png)) for n in range(32)]
    with client.stream("POST", "/predict/batch", files=images) as answer:
        assert answer.status_code == 200
        pieces = [piece for piece in answer.iter_raw() if piece]
    assert b"".join(pieces).count(b"\n") == 32
    assert pieces[0].count(b"\n") <= Settings.model_fields["max_batch_size"].default


def test_a_body_too_large_is_refused_in_the_services_words(client: httpx2.Client) -> None:
    most = Settings.model_fields["max_image_bytes"].default
    chunks = (b"0" * 1_000_000 for _ in range(most // 1_000_000 + 2))
    answer = client.post("/predict", content=chunks, headers={"Content-Type": "image/png"})
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:dermhybrid:problem:image-too-many-bytes"


def test_without_the_service_it_says_when_to_come_again(tmp_path: Path) -> None:
    with proxy(tmp_path, f"http://127.0.0.1:{free_port()}") as address:
        answer = httpx2.get(f"{address}/models", verify=trusting_own(tmp_path), timeout=60)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:dermhybrid:problem:service-unreachable"
    assert problem["status"] == 503


def test_the_certificate_may_be_the_hospitals_and_no_other_name_is_answered(
    service: str, tmp_path: Path
) -> None:
    crt, key = make_certificate(tmp_path, "hospital")
    environment = {"TLS_FILES": f"{crt} {key}", "HSTS_SECONDS": "60"}
    trusting = ssl.create_default_context(cafile=crt)
    with proxy(tmp_path, service, **environment) as address:
        answer = httpx2.get(f"{address}/models", verify=trusting)
        elsewhere = address.replace("localhost", "127.0.0.1")  # the certificate has it too
        misdirected = httpx2.get(f"{elsewhere}/models", verify=trusting)
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=60"
    assert misdirected.status_code == 421
    assert misdirected.json()["type"] == "urn:dermhybrid:problem:misdirected-request"


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        ("GET /models HTTP/1.1\r\nHost: localhost\r\n", "A: b\r\n"),
        (
            "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            "Content-Length: 100000\r\n\r\n",
            "0",
        ),
    ],
    ids=["head", "body"],
)
def test_what_comes_too_slowly_is_given_up(
    head: str, drop: str, service: str, tmp_path: Path
) -> None:
    with proxy(tmp_path, service, BODY_SECONDS="5") as address:
        begun = time.monotonic()
        with encrypted(int(address.rpartition(":")[2])) as line:
            line.settimeout(1)
            line.sendall(head.encode())
            while True:
                assert time.monotonic() - begun < PATIENCE_SECONDS
                try:
                    if not line.recv(10_000):
                        break
                except TimeoutError:
                    line.sendall(drop.encode())
                except OSError:
                    break


def test_bodies_have_the_time_that_the_service_gives_at_most() -> None:
    text = CADDYFILE.read_text(encoding="utf-8")
    (seconds,) = re.findall(r"read_body \{\$BODY_SECONDS:(\d+)\}s", text)
    assert int(seconds) > Settings().max_request_timeout_seconds
