"""The container images are built from their Dockerfiles and run under the limits of compose.

`make test-image`: it takes minutes and root, so that it is not among the tests of every day.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import REPOSITORY
from tests.deploy.containers import (
    ARCHIVE,
    IMAGE,
    ProgramError,
    build_image,
    compose_service,
    compose_volumes,
    missing_programs,
    podman,
    remove_volumes,
    running_container,
)
from tests.dicom_photographs import make_dataset, to_bytes
from tests.orthanc import Orthanc
from tests.ports import free_port
from training.readme import newest_artifact

pytestmark = pytest.mark.skipif("IMAGE_TEST" not in os.environ, reason="make test-image")

LOG = logging.getLogger(__name__)
GOLDEN = REPOSITORY / newest_artifact("cnn_efficientnet_lite0") / "golden_input.png"
READY_SECONDS = 600
NUM_REQUESTS = 32


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    assert not (missing := missing_programs()), f"apt-get install {' '.join(missing)}"
    assert os.geteuid() == 0, "buildah and podman are run as root here"
    begun = time.monotonic()
    origin = build_image(tmp_path_factory.mktemp("base"))
    LOG.info("built in %.0f s; base: %s", time.monotonic() - begun, origin)
    return origin


@pytest.fixture
def volumes(image: str) -> Iterator[str]:
    """What the names of volumes begin with, that are removed in the end."""
    name = f"test-{uuid4().hex}"
    yield name
    remove_volumes(name)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[tuple[str, str]]:
    """The container, ready, and its address."""
    volumes = f"test-{uuid4().hex}"
    with ready_container(volumes) as both:
        yield both
    remove_volumes(volumes)


@contextmanager
def ready_container(volumes: str, **settings: str) -> Iterator[tuple[str, str]]:
    port = free_port()
    # Containers share this machine's network here.
    ports = {name: str(free_port()) for name in ("OPERATIONS_PORT", "DICOM_LISTEN_PORT")}
    environment = {**ports, **settings}
    serve = ["dermhybrid", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with running_container(volumes, environment, serve) as name:
        address = f"http://127.0.0.1:{port}"
        begun = time.monotonic()
        while not is_ready(address):
            assert is_running(name), podman("logs", name)
            assert time.monotonic() - begun < READY_SECONDS, podman("logs", name)
            time.sleep(0.5)
        LOG.info("ready after %.0f s", time.monotonic() - begun)
        yield name, address


def is_running(container: str) -> bool:
    state = json.loads(podman("inspect", container))[0]["State"]
    return bool(state["Running"])


def is_ready(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def test_it_answers_with_the_committed_models(container: tuple[str, str]) -> None:
    _, address = container
    models = REPOSITORY / "models"
    shown = httpx2.get(f"{address}/models").json()["models"]
    committed = {path.stem for path in models.iterdir() if path.suffix != ".md"}
    assert {model["name"] for model in shown} == committed
    picture = GOLDEN.read_bytes()
    for model in shown:
        version = models / model["name"] / str(model["version"]) / "manifest.json"
        described = version if version.exists() else models / f"{model['name']}.json"
        assert model["digest"] == hashlib.sha256(described.read_bytes()).hexdigest()
        files = {"image": picture}
        answer = httpx2.post(f"{address}/predict", params={"model": model["name"]}, files=files)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"]["digest"] == model["digest"]


def test_it_has_no_right_that_it_does_not_need(container: tuple[str, str]) -> None:
    name, _ = container
    lines = podman("exec", name, "cat", "/proc/1/status").splitlines()
    status = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
    assert "0" not in status["Uid"] + status["Gid"] + status["Groups"]
    assert {int(status[f"Cap{kind}"][0], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]  # a filter


@pytest.mark.parametrize("folder", ["/", "/srv", "/srv/models", "/opt/venv", "/etc", "/var/lib"])
def test_its_root_cannot_be_written(container: tuple[str, str], folder: str) -> None:
    name, _ = container
    with pytest.raises(ProgramError, match="Read-only file system"):
        podman("exec", "--user", "0", name, "touch", f"{folder}/written")


def test_its_memory_and_processes_are_bounded(container: tuple[str, str]) -> None:
    pid = json.loads(podman("inspect", container[0]))[0]["State"]["Pid"]
    said = compose_service()
    assert cgroup_limit(pid, "memory") == int(said["mem_limit"].removesuffix("g")) << 30
    assert cgroup_limit(pid, "pids") == said["pids_limit"]


def cgroup_limit(pid: int, kind: str) -> int:
    """What the kernel holds a process to, by either version of control groups."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if kind in controllers.split(","):
            name = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}[kind]
            return int(Path(f"/sys/fs/cgroup/{kind}{path}/{name}").read_text(encoding="utf-8"))
        if not controllers:
            unified = Path(f"/sys/fs/cgroup{path}/{kind}.max")
            if unified.exists():
                return int(unified.read_text(encoding="utf-8"))
    raise AssertionError(f"no limit of {kind}")


def test_its_health_check_tells_the_port_where_it_listens(container: tuple[str, str]) -> None:
    name, address = container
    (image,) = json.loads(podman("inspect", "--type", "image", IMAGE))
    config = image["Config"]
    kind, *command = image["Healthcheck"]["Test"]
    usual = config["Cmd"][config["Cmd"].index("--port") + 1]
    assert kind == "CMD"
    assert list(config["ExposedPorts"]) == [f"{usual}/tcp"]
    assert f":{usual}/" in command[-1]
    port = address.rpartition(":")[2]
    podman("exec", name, *command[:-1], command[-1].replace(f":{usual}/", f":{port}/"))
    with pytest.raises(ProgramError, match="Connection refused"):
        podman("exec", name, *command[:-1], command[-1].replace(f":{usual}/", f":{free_port()}/"))


def test_it_stops_without_losing_an_answer_and_its_record_goes_on_in_the_next(volumes: str) -> None:
    picture = GOLDEN.read_bytes()

    async def scenario(name: str, address: str) -> Counter[int]:
        limits = httpx2.Limits(max_connections=NUM_REQUESTS)
        async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=120) as client:
            sent = [
                asyncio.create_task(client.post("/predict", files={"image": picture}))
                for _ in range(NUM_REQUESTS)
            ]
            await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(podman, "stop", name)
            answers = await asyncio.gather(*sent)
        return Counter(answer.status_code for answer in answers)

    recorded = []
    for _ in range(2):
        with ready_container(volumes) as (name, address):
            statuses = asyncio.run(scenario(name, address))
            assert set(statuses) <= {200, 503}
            assert statuses[200]
            assert statuses.total() == NUM_REQUESTS
            state = json.loads(podman("inspect", name))[0]["State"]
            assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
            recorded.append(statuses[200])
    records = compose_volumes()["audit"]
    command = ["dermhybrid", "audit", "verify", records]
    found = podman(
        "run",
        "--rm",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=512:512",
        "--volume",
        f"{volumes}-audit:{records}",
        "--network",
        "host",
        IMAGE,
        *command,
    )
    (kept,) = re.findall(r"answers: intact up to record (\d+)", found)
    assert int(kept) == sum(recorded)


def test_the_archives_image_keeps_photographs_and_gets_their_results(
    volumes: str, tmp_path: Path
) -> None:
    origin = build_image(tmp_path / "base", ARCHIVE, REPOSITORY / "deploy" / "orthanc")
    LOG.info("archive built; base: %s", origin)
    said = json.loads((REPOSITORY / "deploy/orthanc/compose.json").read_text(encoding="utf-8"))
    archive = Orthanc(f"http://127.0.0.1:{said['HttpPort']}", said["DicomPort"])
    photograph = make_dataset()
    file = tmp_path / "photograph.dcm"
    file.write_bytes(to_bytes(photograph))
    with ready_container(volumes, DICOM_STORE_URL=archive.dicomweb) as (_, address):
        environment = {"DERMHYBRID_URL": address}
        try:
            for is_new in (True, False):  # what it keeps is there for the next container
                with running_container(
                    volumes, environment, [], service="orthanc", image=ARCHIVE
                ) as name:
                    give_up = time.monotonic() + 60
                    while not has_all(archive, file if is_new else None):
                        assert is_running(name), podman("logs", name)
                        assert time.monotonic() < give_up, podman("logs", name)
                        time.sleep(0.5)
                    status = podman("exec", name, "cat", "/proc/1/status")
                    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
                    assert not re.search(r"^Uid:.*\b0\b", status, re.MULTILINE)
                    with pytest.raises(ProgramError, match="Read-only file system"):
                        podman("exec", "--user", "0", name, "touch", "/etc/written")
        finally:
            remove_volumes(volumes, "orthanc")


def has_all(archive: Orthanc, photograph: Path | None) -> bool:
    """Whether it has a photograph and its report; the photograph is sent to it first."""
    try:
        if photograph:
            archive.store(photograph)
        return archive.count().get("SR") == 1  # a heatmap too, unless the picture was rejected
    except (subprocess.CalledProcessError, httpx2.TransportError):
        return False
