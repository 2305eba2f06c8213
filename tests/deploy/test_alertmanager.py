"""A real Alertmanager, by the file that is shipped: one cause wakes people once."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.programs import require_program

CONFIG = REPOSITORY / "deploy" / "prometheus" / "alertmanager.yml"
RULES = (REPOSITORY / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8")
SEVERITIES = dict(re.findall(r"- alert: (\w+)\n.*?severity: (\w+)\n", RULES, re.DOTALL))


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    program, port = require_program("prometheus-alertmanager"), free_port()
    folder = tmp_path_factory.mktemp("alertmanager")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(program, f"--config.file={CONFIG}", f"--storage.path={folder}"),
                *(f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            await_ready(client, process, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


def await_ready(client: httpx2.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up
        try:
            if client.get("/-/ready").status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.1)


def told(client: httpx2.Client, instances: dict[str, str], job: str) -> dict[str, str]:
    """Of alerts that fire, by name and instance, those that are not silent, with their receiver."""
    alerts = [
        {
            "labels": {
                "alertname": name,
                "severity": SEVERITIES[name],
                "job": job,
                **({"instance": instance} if instance else {}),
            }
        }
        for name, instance in instances.items()
    ]
    client.post("/api/v2/alerts", json=alerts).raise_for_status()
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        answer = client.get("/api/v2/alerts", params={"filter": f'job="{job}"'}).json()
        if len(answer) == len(alerts) and all(
            a["status"]["state"] != "unprocessed" for a in answer
        ):
            break
        time.sleep(0.1)
    assert len(answer) == len(alerts)
    return {
        alert["labels"]["alertname"]: alert["receivers"][0]["name"]
        for alert in answer
        if alert["status"]["state"] == "active"
    }


@pytest.mark.parametrize(
    ("firing", "expected"),
    [
        (
            {
                "DermHybridSelfTestFailed": "a",
                "DermHybridNotReady": "a",
                "DermHybridErrorsSlow": "",
            },
            {"DermHybridSelfTestFailed": "page"},
        ),
        # It may be the shadow's, or one replica's, and others the ones that fail.
        (
            {"DermHybridSelfTestFailed": "a", "DermHybridErrorsFast": ""},
            {"DermHybridSelfTestFailed": "page", "DermHybridErrorsFast": "page"},
        ),
        # Of another replica: its own reason.
        (
            {"DermHybridSelfTestFailed": "a", "DermHybridNotReady": "b"},
            {"DermHybridSelfTestFailed": "page", "DermHybridNotReady": "page"},
        ),
        (
            {"DermHybridAuditFailing": "a", "DermHybridErrorsFast": "", "DermHybridErrorsSlow": ""},
            {"DermHybridAuditFailing": "page", "DermHybridErrorsFast": "page"},
        ),
        (
            {"DermHybridErrorsFast": "", "DermHybridErrorsSlow": "", "DermHybridDicomDead": "a"},
            {"DermHybridErrorsFast": "page", "DermHybridDicomDead": "ticket"},
        ),
        # A ticket says why, and somebody is still woken.
        (
            {"DermHybridFhirStoreFailing": "a", "DermHybridErrorsFast": ""},
            {"DermHybridFhirStoreFailing": "ticket", "DermHybridErrorsFast": "page"},
        ),
        (
            {"DermHybridDown": "a", "DermHybridDicomDead": "a", "DermHybridQueueLong": "b"},
            {"DermHybridDown": "page", "DermHybridQueueLong": "ticket"},
        ),
        (
            {"DermHybridSlowFast": "", "DermHybridSlowSlow": "", "DermHybridShedding": ""},
            {"DermHybridSlowFast": "page", "DermHybridShedding": "ticket"},
        ),
        (
            {"DermHybridQueueLong": "a", "DermHybridSlowSlow": ""},
            {"DermHybridQueueLong": "ticket"},
        ),
    ],
    ids=lambda value: "-".join(value).replace("DermHybrid", ""),
)
def test_one_cause_wakes_people_once(
    alertmanager: httpx2.Client, firing: dict[str, str], expected: dict[str, str]
) -> None:
    job = "-".join(firing)  # a job of its own, so that no test sees another one's alerts
    assert told(alertmanager, firing, job) == expected


def test_no_ticket_keeps_a_page_silent(alertmanager: httpx2.Client) -> None:
    pages = [name for name, severity in SEVERITIES.items() if severity == "page"]
    tickets = sorted(set(SEVERITIES) - set(pages))
    assert len(pages) > 5
    # Each page alone with all tickets: beside another page it may be silent for that one's sake.
    for page in pages:
        for instance in ("a", ""):  # of a replica, or of the whole job
            firing = {page: instance, **dict.fromkeys(tickets, instance)}
            assert page in told(alertmanager, firing, f"{page}-of-{instance}-and-tickets")


def test_every_name_in_the_file_is_an_alerts() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    named = re.findall(r'alertname=~?"([^"]+)"', text)
    assert len(named) > 5
    for pattern in named:
        assert [name for name in SEVERITIES if re.fullmatch(pattern, name)], pattern
        alternatives = re.fullmatch(r"(\w+)\((.+)\)", pattern)
        for ending in alternatives[2].split("|") if alternatives else ():
            assert alternatives is not None
            assert alternatives[1] + ending in SEVERITIES
