"""`dermhybrid dicom`: a photograph becomes a report and a heatmap that real tools accept."""

import re
import subprocess
from pathlib import Path

import pydicom
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.cli import main
from app.domain.labels import CLASSES, LABELS
from app.main import create_app
from app.settings import Settings
from tests.conftest import ATTENTION_MODEL
from tests.dicom_photographs import PATIENT_NAME, jpeg_photograph, lesion, make_dataset, to_bytes
from tests.programs import require_program


@pytest.fixture(autouse=True)
def tiny_service(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("RUNTIME", "openvino")


def test_the_printed_report_has_the_services_own_probabilities(
    tmp_path: Path, tiny_models: Path
) -> None:
    dsrdump = require_program("dsrdump")
    path = tmp_path / "photograph.dcm"
    path.write_bytes(jpeg_photograph(lesion()))
    arguments = ["dicom", str(path), "--output", str(tmp_path / "out"), "--model", ATTENTION_MODEL]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "Research software" in outcome.output
    assert PATIENT_NAME not in outcome.output
    written = dict(line.split(" ", 1) for line in outcome.output.splitlines()[:2])
    assert set(written) == {"SR", "OT"}
    dump = subprocess.run([dsrdump, written["SR"]], capture_output=True, text=True, check=True)
    with TestClient(create_app(Settings())) as client:
        response = client.post(
            "/predict",
            content=path.read_bytes(),
            headers={"Content-Type": "application/dicom"},
            params={"model": ATTENTION_MODEL},
        )
    for diagnostic_class, label in zip(CLASSES, LABELS, strict=True):
        name = diagnostic_class.name.split(" (")[0].lower()
        printed = re.search(rf'"Probability of {name}"\)="([0-9.e-]+)"', dump.stdout)
        assert printed, dump.stdout
        expected = response.json()["probabilities"][label]
        assert float(printed.group(1)) == pytest.approx(expected, rel=1e-10)
    label = response.json()["predicted_class"]["label"]
    drawn = pydicom.dcmread(written["OT"]).DerivationDescription
    assert drawn.startswith(f"Grad-CAM of {ATTENTION_MODEL}@1 for {label}.")
    for result in written.values():
        checked = subprocess.run(
            [require_program("dciodvfy"), result], capture_output=True, text=True, check=False
        )
        assert "Error" not in checked.stdout + checked.stderr
    again = CliRunner().invoke(main, arguments)
    assert again.output == outcome.output


def test_what_cannot_be_answered_is_said(tmp_path: Path) -> None:
    path = tmp_path / "grey.dcm"
    path.write_bytes(to_bytes(make_dataset(PhotometricInterpretation="MONOCHROME2")))
    outcome = CliRunner().invoke(main, ["dicom", str(path), "--output", str(tmp_path / "out")])
    assert outcome.exit_code == 1
    assert "no colour photograph" in outcome.output
    assert not (tmp_path / "out").exists()


def test_an_object_of_too_many_bytes_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photograph.dcm"
    path.write_bytes(jpeg_photograph(lesion()) + bytes(2_000_000))
    monkeypatch.setenv("MAX_IMAGE_BYTES", "1000000")
    output = tmp_path / "out"
    outcome = CliRunner().invoke(main, ["dicom", str(path), "--output", str(output)])
    assert outcome.exit_code == 1
    assert f"{path.stat().st_size:,} bytes; at most 1,000,000" in outcome.output
    assert not output.exists()
