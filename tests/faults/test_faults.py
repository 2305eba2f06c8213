"""Each fault once, in a quick form; and the page is its JSON's."""

import asyncio

import pytest

from tests.conftest import PLAIN_MODEL
from tests.faults.ledger import Report
from tests.faults.sections import FAULTS, inject
from tests.faults.service import Stage
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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_survived(fault: str, reports: dict[str, Report]) -> None:
    report = reports[fault]
    if report.skipped:
        pytest.skip(report.skipped)
    assert report.wrong == []
