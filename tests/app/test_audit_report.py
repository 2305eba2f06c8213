"""The report's figures, on records whose figures are known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.audit import AuditLog
from app.audit_report import (
    drift_of_classes,
    drift_of_confidence,
    read_reports,
    to_json,
    to_text,
)
from app.cli import main
from app.domain.labels import LABELS
from app.domain.measurements import ReliabilityBin
from app.feedback import FEEDBACK_FOLDER
from tests.tiny_artifact import tiny_metrics, write_tiny_artifact

MODEL = {"name": "tiny", "version": 1}


def answer(
    predicted: str | None, confidence: float | None, action: str = "report"
) -> dict[str, Any]:
    reasons = {"report": [], "refer": ["malignancy", "large-set"], "reject": ["poor-quality"]}
    return {
        "request_id": "x",
        "model": MODEL,
        "answer": {
            "predicted_class": predicted,
            "confidence": confidence,
            "decision": {"action": action, "reasons": reasons[action]},
        },
    }


def diagnosis(sequence: int, label: str, source: str) -> dict[str, Any]:
    return {"answer": {"sequence": sequence}, "diagnosis": label, "source": source}


@pytest.fixture
def audit_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "audit"
    log = AuditLog(folder, 500)
    for record in (
        answer("nv", 0.95),  # 1
        answer("nv", 0.91),  # 2
        answer("mel", 0.55, "refer"),  # 3
        answer("bkl", 0.6, "refer"),  # 4
        answer(None, None, "reject"),  # 5
        answer("nv", 0.99),  # 6, of which nothing is known
        {"model": {**MODEL, "version": 2}, "answer": {"predicted_class": "df", "confidence": 1.0}},
    ):
        log.append([record])
    log.close()
    log = AuditLog(folder / FEEDBACK_FOLDER, 500)
    for record in (
        diagnosis(1, "mel", "clinical"),
        diagnosis(1, "nv", "histo"),
        diagnosis(1, "bkl", "clinical"),  # weaker than histology, though newer
        diagnosis(2, "nv", "follow_up"),
        diagnosis(2, "mel", "follow_up"),  # a correction
        diagnosis(3, "mel", "histo"),
        diagnosis(4, "bkl", "consensus"),
        diagnosis(5, "vasc", "histo"),
        diagnosis(99, "nv", "histo"),  # of no answer
    ):
        log.append([record])
    log.close()
    return folder


def test_the_figures_are_those_of_the_records(audit_dir: Path) -> None:
    reports = read_reports(audit_dir)
    assert list(reports) == ["tiny@1", "tiny@2"]
    report = reports["tiny@1"]
    assert (report.num_answers, report.num_diagnosed, report.num_rejected_diagnosed) == (6, 5, 1)
    assert report.agreement() == (3, 4)
    assert {label: dict(row) for label, row in report.confusion.items()} == {
        "nv": {"nv": 1},
        "mel": {"nv": 1, "mel": 1},
        "bkl": {"bkl": 1},
    }
    assert dict(report.actions) == {"report": 3, "refer": 2, "reject": 1}
    assert dict(report.reasons) == {"malignancy": 2, "large-set": 2, "poor-quality": 1}
    assert dict(report.classes) == {"nv": 3, "mel": 1, "bkl": 1}
    assert dict(report.sources) == {"histo": 3, "follow_up": 1, "consensus": 1}
    assert dict(reports["tiny@2"].actions) == {}


def test_drift_is_the_divergence_from_the_test_part(audit_dir: Path) -> None:
    report = read_reports(audit_dir)["tiny@1"]
    confusion = [[0] * 7 for _ in LABELS]
    for label, count in (("nv", 60), ("mel", 20), ("bkl", 20)):
        confusion[0][LABELS.index(label)] = count
    same = [
        ReliabilityBin(num_images=count, confidence=confidence, accuracy=0.5)
        for count, confidence in ((40, 0.98), (20, 0.92), (20, 0.55), (20, 0.59))
    ]
    metrics = tiny_metrics().model_copy(update={"confusion_matrix": confusion, "reliability": same})
    chance = 2 / (8 * math.log(2)) * (1 / 5 + 1 / 100)
    found = drift_of_classes(report, metrics)
    assert found is not None
    assert found.divergence == pytest.approx(0.0)
    assert found.by_chance == pytest.approx(chance)
    found = drift_of_confidence(report, metrics)
    assert found is not None
    # 3 of 5 in the highest bins, and 0.55 and 0.6 in one: the same shares but for 0.91's bin.
    assert 0.0 <= found.divergence < 0.2
    other = metrics.model_copy(
        update={"confusion_matrix": [[0, 0, 0, 100, 0, 0, 0], *confusion[1:]]}
    )
    found = drift_of_classes(report, other)
    assert found is not None
    assert found.divergence == pytest.approx(1.0)


def test_a_record_that_is_none_is_passed_over(audit_dir: Path) -> None:
    before = read_reports(audit_dir)
    with (audit_dir / "audit-000001.jsonl").open("ab") as file:
        file.write(b'not json\n[]\n{"model": 3}\n{"model":{"name":"x"}}\n\xff\n')
    assert read_reports(audit_dir)["tiny@1"] == before["tiny@1"]


def test_the_command_prints_for_people_and_for_machines(audit_dir: Path, tmp_path: Path) -> None:
    write_tiny_artifact(tmp_path / "models", "tiny")
    arguments = ["audit", "report", str(audit_dir), "--models", str(tmp_path / "models")]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert "tiny@1: 6 answers" in lines
    assert any(line.startswith("agreement: 3 of 4, 0.750 (0.301 to 0.954)") for line in lines)
    assert "mel 0 0 0 0 1 1 0" in lines
    assert any("of 1 nothing is known" in line for line in lines)
    assert any(line.startswith("drift of classes from the test part") for line in lines)
    assert any("this version is not among the models" in line for line in lines)
    assert "Not a medical device" in shown.output
    values = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert values["tiny@1"]["agreement"] == {"right": 3, "of": 4, "low": 0.3006, "high": 0.9544}
    assert values["tiny@1"]["drift"]["classes"]["divergence"] > 0
    assert values["tiny@2"]["agreement"] is None
    assert values["tiny@2"]["drift"] == {"classes": None, "confidence": None}


def test_an_empty_folder_has_no_record(tmp_path: Path) -> None:
    assert read_reports(tmp_path) == {}
    assert to_text({}, {}) == "no record"
    assert to_json({}, {}) == {}
