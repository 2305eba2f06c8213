"""The service on Ray Serve: two replicas answer as one process does, and are replaced unnoticed.

`make test-ray`: Ray gives up where one of its processes takes longer than 15 seconds to start, so
that these are not among the tests that share a machine.
"""

import asyncio
import copy
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml

from app.audit_chain import read_head, verify
from app.domain.heatmaps import encode_png
from app.ray_serve import NUM_OPERATIONS_PORTS
from tests.conftest import PLAIN_MODEL, REPOSITORY
from tests.deploy.ray_cluster import START_SECONDS, Cluster, ray_cluster
from tests.pictures import sharp_lesion
from tests.service_process import service_process
from tests.tiny_artifact import write_tiny_artifact

pytestmark = pytest.mark.skipif("RAY_TEST" not in os.environ, reason="make test-ray")

CONFIG = yaml.safe_load((REPOSITORY / "deploy/ray/serve.yaml").read_text(encoding="utf-8"))
COMMITTED_MODEL = REPOSITORY / "models" / "cnn_efficientnet_lite0" / "3"

CONTROL_PORT, PORT, OPERATIONS_PORT = 6479, 8479, 9479
"""Not among those that systems give out by themselves."""

COMMON = {
    "AUTHENTICATION": "off",
    "RUNTIME": "openvino",
    "OUT_OF_DISTRIBUTION_GATE": "advise",  # drawn pictures are none of the data's
    "REQUEST_TIMEOUT_SECONDS": "120",  # a machine may be slow; here nobody is to be timed out
}
ONE_THREAD = {"MODEL_THREADS": "1"}
"""What a replica of one CPU takes by itself: sums of floats depend on how they are shared out."""


@dataclass(frozen=True)
class Service:
    """The service on a cluster."""

    cluster: Cluster
    config: dict[str, Any]
    scratch: Path
    audit: Path
    url: str = f"http://127.0.0.1:{PORT}"

    def deploy(self, models: Path) -> None:
        config = copy.deepcopy(self.config)
        config["applications"][0]["runtime_env"]["env_vars"]["MODELS_DIR"] = str(models)
        self.cluster.deploy(config, self.scratch)

    def await_version(self, model: str, version: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        with httpx2.Client(timeout=30) as client:
            while time.monotonic() < deadline:
                with suppress(httpx2.TransportError):
                    found = client.get(f"{self.url}/models/{model}")
                    if found.status_code == 200 and found.json()["version"] == version:
                        return
                time.sleep(0.2)
        raise AssertionError(f"{model}@{version} is not served after {START_SECONDS} s")

    def await_replicas(self) -> dict[int, int]:
        """`answered`, as soon as there are two replicas: those that were replaced are gone."""
        deadline = time.monotonic() + START_SECONDS
        while len(counts := self.answered()) != 2:
            assert time.monotonic() < deadline, counts
            time.sleep(0.2)
        return counts

    def answered(self) -> dict[int, int]:
        """Predictions that each replica has answered, by its port for operators."""
        pattern = r'http_requests_total\{method="POST",route="/predict",status="200"\} (\d+)'
        found = {port: re.search(pattern, text) for port, text in self.metrics().items()}
        return {port: int(match.group(1)) if match else 0 for port, match in found.items()}

    def serves(self, model: str, version: int) -> bool:
        """Whether any replica has a version of a model as its newest."""
        pattern = rf'model_info\{{.*model="{model}".*version="(\d+)"'
        found = [re.findall(pattern, text) for text in self.metrics().values()]
        return any(max(map(int, shown), default=0) == version for shown in found)

    def metrics(self) -> dict[int, str]:
        """What each replica measures, by its port for operators."""
        texts = {}
        with httpx2.Client(timeout=30) as client:
            for port in range(OPERATIONS_PORT, OPERATIONS_PORT + NUM_OPERATIONS_PORTS):
                with suppress(httpx2.TransportError):  # nobody has it, or leaves it
                    texts[port] = client.get(f"http://{self.cluster.host}:{port}/metrics").text
        return texts


@pytest.fixture(scope="module")
def service(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The committed config on a small cluster: two replicas of one CPU, with the tiny models."""
    folder = tmp_path_factory.mktemp("ray")
    config = copy.deepcopy(CONFIG)
    config["http_options"] |= {"host": "127.0.0.1", "port": PORT}
    (application,) = config["applications"]
    variables = application["runtime_env"]["env_vars"]
    del variables["API_KEYS_FILE"]
    variables |= COMMON | {
        "AUDIT_DIR": str(folder / "audit"),
        "OPERATIONS_PORT": str(OPERATIONS_PORT),
    }
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 1}
    # A third replica, where a machine is slow and requests wait, would have no CPU.
    deployment["autoscaling_config"]["max_replicas"] = 2
    deployment["health_check_timeout_s"] = 120
    with ray_cluster(folder / "log", CONTROL_PORT, num_cpus=2) as cluster:
        running = Service(cluster, config, folder / "serve.yaml", folder / "audit")
        running.deploy(tiny_models)
        running.await_version(PLAIN_MODEL, 2)
        yield running


def pictures() -> list[bytes]:
    return [encode_png(sharp_lesion(320 + 16 * i, 240 + 8 * i)) for i in range(6)]


def probabilities(client: httpx2.Client, picture: bytes) -> bytes:
    """What the service answers, as the model's own float32."""
    answer = client.post("/predict?heatmap=false", files={"image": picture})
    assert answer.status_code == 200, answer.text
    shown = answer.json()["probabilities"]
    values = np.array(list(shown.values()), np.float32)
    assert values.tolist() == list(shown.values())  # nothing was rounded away
    return json.dumps(list(shown)).encode() + values.tobytes()


def compare(service: Service, models: Path, images: list[bytes], log: Path) -> None:
    """Ask one process once, and the replicas until each of them has answered something."""
    settings = {**COMMON, **ONE_THREAD, "MODELS_DIR": str(models)}
    with (
        service_process(log, settings, stop_seconds=60) as (_, address),
        httpx2.Client(base_url=address, timeout=120) as client,
    ):
        expected = [probabilities(client, image) for image in images]
    before = Counter(service.await_replicas())
    num_asked = 0
    with httpx2.Client(base_url=service.url, timeout=120) as client:
        for _ in range(20):
            assert [probabilities(client, image) for image in images] == expected
            num_asked += len(images)
            more = {port: n - before[port] for port, n in service.answered().items()}
            assert sum(more.values()) == num_asked
            if all(more.values()):
                return
    raise AssertionError(f"One replica has answered everything: {more}")


@pytest.mark.slow
def test_two_replicas_give_the_same_bytes_of_probabilities_as_one_process(
    service: Service, tiny_models: Path, tmp_path: Path
) -> None:
    compare(service, tiny_models, pictures(), tmp_path / "log")


@pytest.mark.slow
def test_each_replica_keeps_a_chain_of_its_own(service: Service) -> None:
    with httpx2.Client(base_url=service.url, timeout=120) as client:
        for picture in pictures():
            probabilities(client, picture)
        assert client.post("/feedback/anything", json={}).status_code == 404
    folders = list(service.audit.iterdir())
    assert len(folders) == 2
    assert not [defect for folder in folders for defect in verify(folder)]
    heads = [read_head(folder) for folder in folders]
    assert sum(head[0] for head in heads if head) == sum(service.answered().values())


@pytest.mark.slow
def test_new_models_take_over_and_no_request_is_lost(
    service: Service, tiny_models: Path, own_models: Path, lesion_png: bytes
) -> None:
    service.deploy(tiny_models)  # nothing new, unless another test has deployed other models
    service.await_version(PLAIN_MODEL, 2)
    write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)

    path = f"/predict?heatmap=false&model={PLAIN_MODEL}"

    async def scenario() -> tuple[Counter[int], Counter[int]]:
        statuses, versions, done = Counter[int](), Counter[int](), asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                answer = await client.post(path, files={"image": lesion_png})
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    versions[answer.json()["model"]["version"]] += 1

        async with httpx2.AsyncClient(base_url=service.url, timeout=120) as client:
            asking = [asyncio.create_task(ask()) for _ in range(4)]
            await asyncio.to_thread(service.deploy, own_models)
            for _ in range(10 * START_SECONDS):
                await asyncio.sleep(0.1)
                if versions[3] and not await asyncio.to_thread(service.serves, PLAIN_MODEL, 2):
                    break
            done.set()
            await asyncio.gather(*asking)
        return statuses, versions

    statuses, versions = asyncio.run(scenario())
    assert set(statuses) == {200}, statuses
    assert versions[2] > 0
    assert versions[3] > 0


@pytest.mark.slow
def test_on_the_samples_too(service: Service, samples: list[Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(COMMITTED_MODEL, models / COMMITTED_MODEL.parent.name / COMMITTED_MODEL.name)
    service.deploy(models)
    service.await_version(COMMITTED_MODEL.parent.name, int(COMMITTED_MODEL.name))
    images = [path.read_bytes() for path in samples]
    assert len(images) == 42
    compare(service, models, images, tmp_path / "log")
