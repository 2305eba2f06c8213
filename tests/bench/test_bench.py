"""The benchmark's page is its JSON's, and its sections run against the real service."""

import itertools
import json
from pathlib import Path

import pytest

from tests.bench.__main__ import PAGE, RESULTS, example_jpeg
from tests.bench.overhead import NUM_STARTS, overhead
from tests.bench.page import write_page
from tests.bench.pressure import overload, reloads, stop
from tests.bench.sections import stages, viewer
from tests.bench.servers import PEERS
from tests.bench.setup import Bench
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY

FREE_PORT = 18700


def test_the_committed_page_is_made_from_the_committed_figures(tmp_path: Path) -> None:
    results = json.loads((REPOSITORY / RESULTS).read_text(encoding="utf-8"))
    write_page(results, tmp_path / "bench.md")
    committed = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert (tmp_path / "bench.md").read_text(encoding="utf-8") == committed


def test_peers_are_sent_the_image_itself() -> None:
    jpeg = example_jpeg()
    for name in ("FastAPI, async def", "LitServe 0.2.19", "mosec 0.9.8"):
        assert jpeg in PEERS[name].call(jpeg).body


@pytest.mark.slow
def test_sections_measure_the_real_service(tiny_models: Path, tmp_path: Path) -> None:
    bench = Bench(
        models=tiny_models,
        artifacts=[tiny_models / PLAIN_MODEL / "2", tiny_models / ATTENTION_MODEL / "1"],
        jpeg=example_jpeg(),
        seconds=0.5,
        rounds=3,
        logs=tmp_path / "logs",
        ports=itertools.count(FREE_PORT),
    )
    assert f"{PLAIN_MODEL}@2, openvino" in stages(bench)
    added = overhead(bench)
    assert added.keys() == {PLAIN_MODEL, ATTENTION_MODEL}
    for found in added.values():
        assert found["bare_p50_ms"] > 0
        assert found["plain_p50_ms"] > 0
        assert len(found["by_start_ms"]) == NUM_STARTS
    page = viewer(bench)
    assert 0 < page["service_p50_ms"] < page["shown_p50_ms"]
    assert page["page_p50_ms"] <= page["page_p95_ms"]
    stopped = stop(bench)
    assert (stopped["lost"], stopped["exit_status"]) == (0, 0)
    assert sum(stopped["statuses"].values()) == stopped["in_flight"]
    reloaded = reloads(bench)
    assert reloaded["reloads"] == 10
    assert set(reloaded["statuses"]) == {"200"}
    overloaded = overload(bench, seconds=6.0)  # a slow machine, too, has a full house then
    assert set(overloaded["health_statuses"]) == {"200"}
    capacities = overloaded["capacity_before_and_after"]
    assert abs(overloaded["capacity_per_second"] - sum(capacities) / 2.0) < 0.02  # rounded
    assert set(overloaded["statuses"]) <= {"200", "503"}
    assert sum(overloaded["statuses"].values()) == int(overloaded["offered_per_second"] * 6.0)
