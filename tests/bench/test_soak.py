"""The soak's page counts what was sent to the real service."""

from pathlib import Path

from tests.bench.__main__ import example_jpeg
from tests.bench.servers import raw_call, serve_project
from tests.bench.soak import soak, write_page

FREE_PORT = 18790


def test_every_request_of_a_soak_is_counted_in_its_interval(
    tiny_models: Path, tmp_path: Path
) -> None:
    settings = {"models_dir": tiny_models, "runtime": "openvino"}
    with serve_project(FREE_PORT, tmp_path / "log", **settings) as server:
        found = soak(server, raw_call(example_jpeg()), 3, 1.0, warm_up=1.0)
    each = int(found["offered_per_second"])
    assert len(found["intervals"]) == 3
    for interval in found["intervals"]:
        assert set(interval["statuses"]) == {"200"}
        assert each <= interval["statuses"]["200"] <= each + 1
        assert 0 < interval["p50_ms"] <= interval["p99_ms"]
        assert interval["resident_mb"] > 0
    (tmp_path / "images").mkdir()
    write_page({"hardware": "", "git_commit": "", **found}, tmp_path / "soak.md")
    page = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert f"{3 * found['intervals'][0]['statuses']['200']:,} x 200; 0 lost" in page
