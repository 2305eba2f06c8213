"""Each fault once, in a quick form; and the page is its JSON's."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import PLAIN_MODEL, REPOSITORY
from tests.faults.__main__ import PAGE, RESULTS
from tests.faults.ledger import Report, documented
from tests.faults.page import write_page
from tests.faults.sections import FAULTS, inject
from tests.faults.stage import Stage
from tests.programs import do_without
from tests.tiny_artifact import write_tiny_artifact


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Report]:
    """What came of the faults whose tests were asked for."""
    folder = tmp_path_factory.mktemp("faults")
    write_tiny_artifact(folder / "models", PLAIN_MODEL, seed=1)
    asked = [
        item.callspec.params.get("fault")
        for item in request.session.items
        if hasattr(item, "callspec")
    ]

    async def run() -> dict[str, Report]:
        stage = Stage(folder / "models", folder, folder / "logs", quick=True)
        return {name: report async for name, report in inject(stage, asked)}

    return asyncio.run(run())


def test_the_committed_page_is_made_from_the_committed_figures(tmp_path: Path) -> None:
    results = json.loads((REPOSITORY / RESULTS).read_text(encoding="utf-8"))
    write_page(results, tmp_path / "faults.md")
    committed = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert (tmp_path / "faults.md").read_text(encoding="utf-8") == committed


def test_every_fault_is_in_the_committed_figures_and_all_was_well() -> None:
    results = json.loads((REPOSITORY / RESULTS).read_text(encoding="utf-8"))
    assert list(results) == list(FAULTS)
    assert {name: found["report"]["wrong"] for name, found in results.items()} == {
        name: [] for name in FAULTS
    }


def test_the_documented_problems_are_read_from_the_readme() -> None:
    found = documented()
    assert found["image-corrupt"] == {422}
    assert found["audit-unavailable"] == {503}
    assert len(found) > 25


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_survived(fault: str, reports: dict[str, Report]) -> None:
    report = reports[fault]
    if report.skipped:
        do_without(report.skipped)
    assert report.wrong == []
