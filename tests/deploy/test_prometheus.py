"""A real Prometheus scrapes the real service, by the files that are shipped."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.programs import require_program
from tests.service_process import openvino_service
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules

SHIPPED = REPOSITORY / "deploy" / "prometheus"
DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana" / "dermhybrid.json").read_text())
QUERIES = sorted(
    {target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])}
)
START_SECONDS = 120


def answer_something(address: str, lesion_png: bytes) -> None:
    for _ in range(3):
        httpx2.post(f"{address}/predict", files={"image": lesion_png}, timeout=60)
    httpx2.post(f"{address}/predict", files={"image": b"no image"}, timeout=60)
    headers = {"x-request-timeout": "0.000001"}
    httpx2.post(f"{address}/predict", files={"image": lesion_png}, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def prometheus(
    lesion_png: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    """A Prometheus that has scraped a service in use for some seconds."""
    program = require_program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    write_tiny_artifact(
        folder / "models",
        "ruled",
        calibration=tiny_calibration(tiny_point(threshold=1.0)),
        decision=tiny_rules(novelty=0.5),
    )
    operations, port = free_port(), free_port()
    shutil.copytree(SHIPPED, folder / "config")
    config = folder / "config" / "prometheus.yml"
    shipped = config.read_text(encoding="utf-8")
    assert "dermhybrid:9100" in shipped  # as docker-compose.yml has it
    config.write_text(
        re.sub(r"_interval: 15s", "_interval: 500ms", shipped).replace(
            "dermhybrid:9100", f"127.0.0.1:{operations}"
        ),
        encoding="utf-8",
    )
    settings = {
        "RUNTIME": "openvino",
        "OPERATIONS_PORT": str(operations),
        "AUDIT_DIR": str(folder / "audit"),
        "DICOM_QUEUE_DIR": str(folder / "queue"),
        "DICOM_STORE_PEER": "NOBODY@127.0.0.1:1",
    }
    with (
        openvino_service(folder / "models", folder / "log", **settings) as (_, address),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ],
        )
        try:
            _wait_until_rates_are_known(client, address, lesion_png)
            yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait_until_rates_are_known(client: httpx2.Client, address: str, lesion_png: bytes) -> None:
    give_up = time.monotonic() + START_SECONDS
    while True:
        answer_something(address, lesion_png)
        try:
            # The newest of all that is asked below: a rate of what was counted twice.
            if query(client, "job:dermhybrid_prediction_errors:ratio_rate5m > 0"):
                return
        except httpx2.TransportError:
            pass  # it is not up yet
        assert time.monotonic() < give_up
        time.sleep(0.5)


def query(client: httpx2.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": expression})
    body = answer.json()
    assert body["status"] == "success", (expression, body)
    found: list[dict[str, Any]] = body["data"]["result"]
    return found


def test_the_service_is_scraped(prometheus: httpx2.Client) -> None:
    (target,) = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert target["health"] == "up"
    assert target["labels"]["job"] == "dermhybrid"


@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_of_the_dashboard_finds_something(
    prometheus: httpx2.Client, expression: str
) -> None:
    assert query(prometheus, expression)


def test_every_rule_is_evaluated(prometheus: httpx2.Client) -> None:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 24
    assert {rule["health"] for rule in rules} == {"ok"}


def test_the_rules_ask_for_metrics_that_there_are(prometheus: httpx2.Client) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SHIPPED.rglob("*.yml"))
    asked = set(re.findall(r"\b(?:job:)?dermhybrid_\w+(?::\w+)?", text))
    known = set(prometheus.get("/api/v1/label/__name__/values").json()["data"])
    assert len(asked) > 15
    assert asked <= known


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert DASHBOARD["uid"] == "dermhybrid"
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] in {"row", "timeseries", "table"}
    assert len(QUERIES) > 25
