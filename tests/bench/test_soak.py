"""The soak's page counts what was sent to the real service."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app.audit_chain import read_head
from tests.bench import capacity, soak
from tests.bench.__main__ import example_jpeg
from tests.bench.servers import raw_call, serve_project
from tests.bench.soak import audit_bytes_per_answer, default_model, steady, write_page
from tests.conftest import REPOSITORY
from tests.ports import free_port

RATE = 2.0
"""Requests a second; a machine may be slow."""


@pytest.mark.slow
def test_every_request_of_a_soak_is_counted_in_its_interval(
    tiny_models: Path, tmp_path: Path
) -> None:
    audit = tmp_path / "audit"
    settings = {
        "models_dir": tiny_models,
        "runtime": "openvino",
        "request_timeout_seconds": 120,
        "audit_dir": audit,
    }
    with serve_project(free_port(), tmp_path / "log", **settings) as server:
        intervals = asyncio.run(steady(server, raw_call(example_jpeg()), RATE, 3, 1.0))
    for interval in intervals:
        assert interval.statuses == {"200": 2}
        assert 0 < interval.p50_ms <= interval.p99_ms
        assert interval.ready_status == 200
        assert interval.resident_mb > 0
    head = read_head(audit)
    assert head is not None
    assert head[0] == 6
    size = sum(path.stat().st_size for path in audit.glob("audit-*"))
    assert audit_bytes_per_answer(audit) == round(size / 6)
    (tmp_path / "images").mkdir()
    results = {
        "hardware": "",
        "model": "tiny@1",
        "git_commit": "",
        "note": "A second one ran beside it.",
        "capacity_per_second": RATE / 0.7,
        "offered_per_second": RATE,
        "interval_seconds": 1.0,
        "intervals": [asdict(interval) for interval in intervals],
    }
    write_page(results, tmp_path / "soak.md")
    page = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "Answers: 6 x 200; 0 lost." in page
    assert "A second one ran beside it." in page
    assert f"The default model is `{default_model()}` by now" in page
    write_page({**results, "model": default_model()}, tmp_path / "soak.md")
    assert "by now" not in (tmp_path / "soak.md").read_text(encoding="utf-8")


@pytest.fixture
def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / soak.RESULTS).read_text(encoding="utf-8"))
    return found


def test_the_committed_pages_are_made_of_the_committed_figures(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for module in (soak, capacity):
        module.write_page(measured, tmp_path / module.PAGE.name)
        made = (tmp_path / module.PAGE.name).read_text(encoding="utf-8")
        assert made == (REPOSITORY / module.PAGE).read_text(encoding="utf-8")
    minutes = len(measured["intervals"]) * measured["interval_seconds"] / 60
    assert minutes == 60


def test_a_load_is_planned_with_a_share_of_the_capacity_and_one_to_spare() -> None:
    found = {"capacity_per_second": 10.0, "answer_bytes": 500_000, "audit_bytes_per_answer": 2_000}
    # 250 days of 8 hours are 7.2 million seconds: 3 a second on average, 9 at the peak.
    plan = capacity.plan(found, 21_600_000)
    assert (plan.mean_per_second, plan.peak_per_second) == (3.0, 9.0)
    assert plan.num_replicas == 3  # two of 7 a second, and one to spare
    assert plan.audit_gb_per_year == pytest.approx(43.2)
    assert plan.peak_mbit_per_second == pytest.approx(36.0)
    assert capacity.plan(found, 1).num_replicas == 2
    assert capacity.plan(found, 21_600_000, peak=5).num_replicas == 4


def test_a_load_of_ones_own_is_planned_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"capacity_per_second": 10.0, "answer_bytes": 500_000, "audit_bytes_per_answer": 2_000}
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(capacity.main)
    command = ["--pictures-per-year", "21600000", "--peak", "5"]
    missing = CliRunner().invoke(app, command)
    assert missing.exit_code == 2
    assert "make soak" in missing.output
    (tmp_path / soak.RESULTS).parent.mkdir(parents=True)
    (tmp_path / soak.RESULTS).write_text(json.dumps(found), encoding="utf-8")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert done.output == (
        "15.00 pictures a second at the peak: 4 replicas like the measured one, 43.20 GB of audit "
        "log a year, 60.0 Mbit/s of answers.\n"
    )
    assert CliRunner().invoke(app, [*command[:2], "--peak", "0.5"]).exit_code == 2
    assert not (tmp_path / capacity.PAGE).exists()
