"""The soak's page counts what was sent to the real service."""

import asyncio
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench.__main__ import example_jpeg
from tests.bench.servers import raw_call, serve_project
from tests.bench.soak import steady, write_page
from tests.ports import free_port

RATE = 2.0
"""Requests a second; a machine may be slow."""


@pytest.mark.slow
def test_every_request_of_a_soak_is_counted_in_its_interval(
    tiny_models: Path, tmp_path: Path
) -> None:
    settings = {"models_dir": tiny_models, "runtime": "openvino", "request_timeout_seconds": 120}
    with serve_project(free_port(), tmp_path / "log", **settings) as server:
        intervals = asyncio.run(steady(server, raw_call(example_jpeg()), RATE, 3, 1.0))
    for interval in intervals:
        assert interval.statuses == {"200": 2}
        assert 0 < interval.p50_ms <= interval.p99_ms
        assert interval.ready_status == 200
        assert interval.resident_mb > 0
    (tmp_path / "images").mkdir()
    results = {
        "hardware": "",
        "git_commit": "",
        "capacity_per_second": RATE / 0.7,
        "offered_per_second": RATE,
        "interval_seconds": 1.0,
        "intervals": [asdict(interval) for interval in intervals],
    }
    write_page(results, tmp_path / "soak.md")
    assert "Answers: 6 x 200; 0 lost." in (tmp_path / "soak.md").read_text(encoding="utf-8")
