"""The clients of docs/integrations/clients.md against the real service and an archive."""

import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

from app.access.keys import create_key
from app.access.scopes import Scope
from tests.conftest import REPOSITORY
from tests.dicom_photographs import make_dataset, to_bytes
from tests.fhir_peers import scripted
from tests.orthanc import run_orthanc
from tests.programs import require_program
from tests.service_process import service_process

FOLDER = REPOSITORY / "docs" / "integrations"
PAGE = (FOLDER / "clients.md").read_text(encoding="utf-8")
CURL, JAVA = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SCOPES = [Scope.PREDICT, Scope.REPORTS_WRITE, Scope.METRICS]
CALLERS = ("curl", "python", "java", "flood", "busy", "reader")


def load_client() -> ModuleType:
    path = FOLDER / "clients" / "dermhybrid_client.py"
    specification = importlib.util.spec_from_file_location("dermhybrid_client", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["dermhybrid_client"] = module
    specification.loader.exec_module(module)
    return module


client = load_client()


@dataclass
class Served:
    """A running service with one place for predictions, and a key for each caller."""

    address: str
    keys: dict[str, str]

    def open(self, caller: str, **options: Any) -> Any:
        return client.DermHybrid(self.address, self.keys[caller], **options)

    def count(self, series: str) -> float:
        """The sum of a metric's series, by a pattern."""
        headers = {"Authorization": f"Bearer {self.keys['reader']}"}
        while True:
            answer = httpx2.get(f"{self.address}/metrics", headers=headers, timeout=60)
            if answer.status_code == 200:
                found = re.findall(rf"^{series} (\S+)$", answer.text, re.MULTILINE)
                return sum(map(float, found))
            assert answer.status_code == 429  # this caller has a quota, too
            time.sleep(1)

    def problems(self, kind: str) -> float:
        """How many failures of a kind the service has told its callers of."""
        return self.count(rf'dermhybrid_problems_total{{problem="{kind}",.*}}')


@pytest.fixture(scope="module")
def served(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    keys = {name: create_key(folder / "keys.jsonl", name, SCOPES, None) for name in CALLERS}
    settings = {
        "MODELS_DIR": str(tiny_models),
        "RUNTIME": "openvino",
        "API_KEYS_FILE": str(folder / "keys.jsonl"),
        "MAX_PREDICTIONS_IN_PROGRESS": "1",
        "QUOTA_PER_MINUTE": "120",
        "QUOTA_BURST": "5",
        "DICOM_QUEUE_DIR": str(folder / "queue"),
    }
    log = folder / "log.jsonl"
    with run_orthanc(folder) as orthanc:
        settings["DICOM_STORE_URL"] = orthanc.dicomweb
        with service_process(log, settings, 60) as (_, address):
            yield Served(address, keys)


@pytest.fixture
def image(tmp_path: Path, lesion_png: bytes) -> Path:
    path = tmp_path / "lesion.png"
    path.write_bytes(lesion_png)
    return path


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def test_curl(served: Served, image: Path, tmp_path: Path) -> None:
    curl = require_program("curl")
    photograph = tmp_path / "PHOTOGRAPH.dcm"
    photograph.write_bytes(to_bytes(make_dataset()))
    answers = []
    for command in CURL.replace("\\\n", "").splitlines():
        for written, meant in (
            ("$KEY", served.keys["curl"]),
            ("localhost:8000", served.address),
            ("PHOTOGRAPH.dcm", str(photograph)),
            ("@IMAGE", f"@{image}"),
        ):
            command = command.replace(written, meant)  # noqa: PLW2901
        run = [curl, "--silent", "--show-error", *shlex.split(command)[1:]]
        answers.append(json.loads(subprocess.run(run, capture_output=True, check=True).stdout))
    answer, receipt = answers
    assert answer["decision"]["action"] in {"report", "refer", "reject"}
    assert [job["state"] for job in receipt["jobs"]] == ["waiting"]


def test_python_answers_are_those_of_the_service(served: Served, lesion_png: bytes) -> None:
    with served.open("python") as service:
        answer = service.predict(lesion_png, request_id="order-4711")
    assert answer.request_id == "order-4711"
    assert answer.action == "refer"
    assert answer.reasons == ("no-rules",)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.confidence == answer.probabilities[answer.predicted_class]
    assert answer.overlay.startswith(b"\x89PNG")
    assert "Not a medical device" in answer.notice
    assert re.fullmatch(r"tiny_\w+@\d", answer.model)


def test_python_tells_failures_apart(served: Served) -> None:
    with served.open("python") as service:
        with pytest.raises(client.Refused, match="422 image-empty") as refused:
            service.predict(b"")
        assert refused.value.problem.request_id
        with pytest.raises(client.Refused, match="415 image-format"):
            service.predict(b"no picture")
        with pytest.raises(client.Refused, match="404 dicom-job-not-found"):
            service.find_job("0" * 32)
    with (
        client.DermHybrid(served.address, "dhk_x_y") as stranger,
        pytest.raises(client.NotAllowed, match="401 not-authenticated"),
    ):
        stranger.predict(b"")


def test_python_waits_as_long_as_it_is_told_to(served: Served, lesion_png: bytes) -> None:
    with served.open("flood") as service, ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(service.predict, lesion_png, heatmap=False) for _ in range(8)]
        assert {answered.result().action for answered in asked} == {"refer"}
    assert served.problems("quota-exceeded") >= 1


def test_python_gets_a_place_once_there_is_one(served: Served, lesion_png: bytes) -> None:
    before = served.problems("service-busy")
    host, port = served.address.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.keys['busy']}\r\n"
    with served.open("python") as service, ThreadPoolExecutor(1) as threads:
        with socket.create_connection((host, int(port))) as slow:
            # The place is taken from a request's first byte on.
            slow.sendall(f"{head}Content-Type: image/png\r\nContent-Length: 9\r\n\r\n".encode())
            until(lambda: served.count("dermhybrid_http_requests_in_flight") >= 2)  # and this one
            asked = threads.submit(service.predict, lesion_png, heatmap=False)
            until(lambda: served.problems("service-busy") > before)
        assert asked.result().action == "refer"


def test_python_gives_up_at_its_deadline() -> None:
    refusal = b'{"type": "urn:dermhybrid:problem:service-busy", "detail": "Full."}'
    headers = {"Retry-After": "3600"}
    with scripted((503, refusal), **headers) as full, client.DermHybrid(full.address) as service:
        with pytest.raises(client.Unavailable, match="503 service-busy: Full"):
            service.predict(b"x")
        assert len(full.received) == 1
    with (
        scripted((502, b"<html>")) as proxy,
        client.DermHybrid(proxy.address) as service,
        pytest.raises(client.Unavailable, match="502 not-from-the-service"),
    ):
        service.predict(b"x")
    with (
        client.DermHybrid("http://127.0.0.1:1", deadline_seconds=0.1) as service,
        pytest.raises(client.Unavailable, match="No answer: ConnectError"),
    ):
        service.predict(b"x")


def test_python_has_a_photograph_answered_in_the_archive(served: Served) -> None:
    data = to_bytes(make_dataset())
    with served.open("busy") as service:
        job = service.send_dicom(data)
        assert not job.has_ended
        until(lambda: service.find_job(job.id).has_ended)
        done = service.find_job(job.id)
        assert (done.state, done.problem, len(done.results)) == ("stored", None, 2)
        assert service.send_dicom(data) == done


def test_the_python_of_the_page(served: Served, image: Path) -> None:
    script = SCRIPT
    for written, meant in (
        ("http://localhost:8000", served.address),
        ('"KEY"', repr(served.keys["python"])),
        ("IMAGE", str(image)),
    ):
        script = script.replace(written, meant)
    environment = {**os.environ, "PYTHONPATH": str(FOLDER / "clients")}
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("refer ")
    assert "Not a medical device" in done.stdout
    file = str(FOLDER / "clients" / "dermhybrid_client.py")
    by_itself = [sys.executable, file, served.address, str(image)]
    environment = {**os.environ, "DERMHYBRID_KEY": served.keys["python"]}
    done = subprocess.run(by_itself, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("refer: ")


def test_java(served: Served, image: Path, tmp_path: Path, lesion_png: bytes) -> None:
    javac, java = require_program("javac"), require_program("java")
    compile_it, run_it = JAVA.strip().splitlines()
    assert shlex.split(compile_it)[:3] == ["javac", "-d", "classes"]
    source = FOLDER / "clients" / "DermHybridClient.java"
    classes = str(tmp_path / "classes")
    subprocess.run([javac, "-Xlint:all", "-Werror", "-d", classes, str(source)], check=True)
    arguments = [a for a in shlex.split(run_it) if a.startswith(("-", "classes", "Derm"))]

    def ask(address: str, path: Path, key: str = "java") -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "DERMHYBRID_KEY": served.keys.get(key, key)}
        command = [java, *arguments, address, str(path)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )

    answered = ask(served.address, image)
    assert answered.stdout.startswith("refer: "), answered.stderr
    assert "Not a medical device" in answered.stdout
    letter = tmp_path / "letter.txt"
    letter.write_text("no picture")
    refused = ask(served.address, letter)
    assert (refused.returncode, refused.stderr[:17]) == (1, "415 image-format:")
    assert "401 not-authenticated" in ask(served.address, image, "dhk_x_y").stderr
    busy = b'{"type":"urn:dermhybrid:problem:service-busy","detail":"Full."}'
    good = json.dumps({"decision": {"action": "reject", "sentence": "No."}, "notice": "N"}).encode()
    with scripted((503, busy), (200, good), **{"Retry-After": "1"}) as twice:
        assert ask(twice.address, image).stdout.startswith("reject: No.")
        assert [body for _, body in twice.received] == [lesion_png, lesion_png]


def test_the_page_says_what_was_not_run() -> None:
    for name in ("C#", "Mirth Connect", "dcm4chee"):
        assert re.search(rf"^\| {name} \| .*\| \*\*no\*\*", PAGE, re.MULTILINE)
        section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert "ot run here" in section or "not run here" in section
