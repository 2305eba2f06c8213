"""The server as a process: whoever was let in gets an answer, however it is told to stop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Limits, Response

from app.audit import AuditLog
from app.domain.errors import AccessConfigurationError
from app.server import Server, check_exposure
from app.settings import Settings
from tests.conftest import PLAIN_MODEL, REPOSITORY
from tests.service_process import openvino_service
from tests.tiny_artifact import write_tiny_artifact

NUM_REQUESTS = 200


async def post(client: AsyncClient, image: bytes) -> Response:
    return await client.post("/predict", files={"image": image})


def test_sigterm_loses_none_of_200_requests_in_flight(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    async def scenario(address: str) -> tuple[Counter[int], list[str]]:
        limits = Limits(max_connections=NUM_REQUESTS)
        async with AsyncClient(base_url=address, limits=limits, timeout=120) as client:
            sent = [asyncio.create_task(post(client, lesion_png)) for _ in range(NUM_REQUESTS)]
            await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*sent)
        types = {a.json()["type"] for a in answers if a.status_code == 503}
        return Counter(answer.status_code for answer in answers), sorted(types)

    settings = {
        "MAX_PREDICTIONS_IN_PROGRESS": str(NUM_REQUESTS),
        "REQUEST_TIMEOUT_SECONDS": "120",  # a machine may be slow; here nobody is to be timed out
    }
    with openvino_service(tiny_models, tmp_path / "log", **settings) as (process, address):
        statuses, types = asyncio.run(scenario(address))
        assert statuses[200] + statuses[503] == NUM_REQUESTS, statuses
        assert statuses[200] > 0
        assert set(types) <= {"urn:dermhybrid:problem:service-stopping"}
        assert process.wait(60) == 0


def test_a_stopping_service_says_so_before_its_port_closes(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    async def scenario(address: str) -> None:
        async with AsyncClient(base_url=address, timeout=30) as client:
            assert (await client.get("/health/ready")).status_code == 200
            process.send_signal(signal.SIGTERM)
            ready = await client.get("/health/ready")
            while ready.status_code == 200:
                await asyncio.sleep(0.01)
                ready = await client.get("/health/ready")
            assert ready.status_code == 503
            assert (await client.get("/health/live")).status_code == 200
            assert (await post(client, lesion_png)).status_code == 503

    with openvino_service(tiny_models, tmp_path / "log", DRAIN_SECONDS="20") as (process, address):
        asyncio.run(scenario(address))
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)  # a second one does not wait
        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104
def test_it_is_not_open_to_the_network_unless_told_so(host: str) -> None:
    with pytest.raises(AccessConfigurationError, match="AUTHENTICATION=off"):
        check_exposure(Settings(), host)
    check_exposure(Settings(authentication="off"), host)
    check_exposure(Settings(api_keys_file=Path("keys.jsonl")), host)


def test_the_storage_scp_is_not_open_to_the_network_unless_told_so() -> None:
    def listening(host: str = "0.0.0.0", **others: Any) -> Settings:  # noqa: S104
        return Settings(
            dicom_queue_dir=Path("queue"),
            dicom_store_peer="PACS@127.0.0.1:104",
            dicom_listen_port=11112,
            dicom_listen_host=host,
            **others,
        )

    tls: dict[str, Any] = {"dicom_tls_certificate": Path("a"), "dicom_tls_private_key": Path("a")}
    for refused in (listening(), listening("::"), listening("pacs.example"), listening(**tls)):
        with pytest.raises(AccessConfigurationError, match="DICOM_CALLING_AES"):
            check_exposure(refused, "127.0.0.1")
    for meant in (
        listening("127.0.0.1"),
        listening(dicom_calling_aes="CAMERA"),
        listening(**tls, dicom_tls_client_ca=Path("ca")),
        listening(dicom_listen_open=True),
    ):
        check_exposure(meant, "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_this_machine_alone_it_may_be_open(host: str) -> None:
    check_exposure(Settings(), host)


def test_sighup_serves_what_the_models_folder_holds_now(own_models: Path, tmp_path: Path) -> None:
    async def scenario(address: str) -> None:
        async with AsyncClient(base_url=address, timeout=30) as client:
            write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
            process.send_signal(signal.SIGHUP)
            for _ in range(600):
                if (await client.get(f"/models/{PLAIN_MODEL}")).json()["version"] == 3:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError(log.read_text())
            (own_models / PLAIN_MODEL / "3" / "golden_input.png").unlink()
            process.send_signal(signal.SIGHUP)
            for _ in range(600):
                if "models refused" in log.read_text():
                    break
                await asyncio.sleep(0.1)
            assert "golden_input.png" in log.read_text()
            assert (await client.get(f"/models/{PLAIN_MODEL}")).json()["version"] == 3

    log = tmp_path / "log"
    with openvino_service(own_models, log) as (process, address):
        asyncio.run(scenario(address))


def test_an_operations_port_that_is_taken_ends_the_start_in_words(
    tiny_models: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        own = {"MODELS_DIR": str(tiny_models), "RUNTIME": "openvino", "AUDIT_DIR": str(records)}
        ended = subprocess.run(
            [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", "0"],
            env={**os.environ, **own, "OPERATIONS_PORT": str(taken.getsockname()[1])},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert ended.returncode == 1
    written = ended.stdout + ended.stderr
    assert "operations port not opened" in written
    assert "address already in use" in written
    assert "Traceback" not in written
    AuditLog(records, 4096).close()  # nobody holds it


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    letter = tmp_path / "letter.pem"
    letter.write_text("Dear colleague")
    for path in (tmp_path / "missing.pem", letter):
        settings = Settings(tls_certificate=path, tls_private_key=path)
        with pytest.raises(AccessConfigurationError, match="TLS_CERTIFICATE or TLS_PRIVATE_KEY"):
            Server(FastAPI(), settings, "127.0.0.1", 0)
