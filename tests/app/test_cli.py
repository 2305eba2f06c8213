"""The command `dermhybrid`, as a process."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.domain.heatmaps import encode_png
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from app.cli import main; main()", *arguments]


def environment(models: Path, runtime: str = "openvino") -> dict[str, str]:
    return {**os.environ, "MODELS_DIR": str(models), "COLUMNS": "200", "RUNTIME": runtime}


def run(models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(models),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def lesion(tmp_path: Path, lesion_png: bytes) -> Path:
    path = tmp_path / "lesion.png"
    path.write_bytes(lesion_png)
    return path


def test_predict_prints_a_table_and_writes_overlays(
    tiny_models: Path, lesion: Path, tmp_path: Path
) -> None:
    overlays = tmp_path / "overlays"
    arguments = ("predict", str(lesion), "--model", ATTENTION_MODEL, "--overlays", str(overlays))
    done = run(tiny_models, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"{ATTENTION_MODEL}@1" in done.stdout
    assert "Not a medical device" in " ".join(done.stdout.split())
    row = next(line for line in done.stdout.splitlines() if "lesion.png" in line)
    numbers = [float(n) for n in re.findall(r"\d\.\d{3}", row)]
    assert len(numbers) == 8
    assert numbers[0] == max(numbers[1:])
    assert sum(numbers[1:]) == pytest.approx(1.0, abs=0.004)
    with Image.open(overlays / "lesion.png.heatmap.png") as overlay:
        width, height = overlay.size
        assert (width, height > 240) == (320, True)
        below = np.asarray(overlay.convert("L"))[240:]
    assert set(np.unique(below)) > {0, 255}  # words, in white on black


def test_the_shadow_answers_nobody_here_either(
    tiny_models: Path, lesion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = run(tiny_models, "predict", str(lesion), "--model", PLAIN_MODEL)
    assert f"{PLAIN_MODEL}@2" in newest.stdout
    monkeypatch.setenv("SHADOW_MODEL", f"{PLAIN_MODEL}@2")
    accepted = run(tiny_models, "predict", str(lesion), "--model", PLAIN_MODEL)
    assert f"{PLAIN_MODEL}@1" in accepted.stdout
    named = run(tiny_models, "predict", str(lesion), "--model", f"{PLAIN_MODEL}@2")
    assert named.returncode == 1


def test_predict_answers_good_files_and_reports_bad_ones(
    tiny_models: Path, lesion: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "letter.png"
    bad.write_text("Dear colleague")
    done = run(tiny_models, "predict", str(bad), str(lesion), str(tmp_path / "missing.png"))
    assert done.returncode == 1
    assert "lesion.png" in done.stdout
    assert "letter.png" in done.stderr
    assert "missing.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_takes_folders_and_says_when_they_are_empty(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    empty = run(tiny_models, "predict", str(folder))
    assert empty.returncode == 1
    assert "no image" in empty.stderr
    for number in range(19):
        (folder / f"{number:02}.PNG").write_bytes(lesion_png)
    (folder / "notes.txt").write_text("no image")
    done = run(tiny_models, "predict", str(folder))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\d\d)\.PNG", done.stdout) == [f"{n:02}" for n in range(19)]


def test_predict_gives_no_answer_to_a_rejected_picture(tmp_path: Path, lesion: Path) -> None:
    models = tmp_path / "models"
    write_tiny_artifact(
        models,
        "ruled",
        calibration=tiny_calibration(tiny_point(threshold=1.0)),
        decision=tiny_rules(min_confidence=0.1, max_set_size=7, novelty=0.5),
    )
    green = tmp_path / "green.png"
    green.write_bytes(encode_png(np.full((240, 320, 3), (10, 240, 10), np.uint8)))
    overlays = tmp_path / "overlays"
    done = run(models, "predict", str(lesion), str(green), "--overlays", str(overlays))
    assert done.returncode == 0, done.stderr
    rows = {
        name: line for line in done.stdout.splitlines() for name in line.split() if ".png" in name
    }
    assert "report" in rows["lesion.png"]
    assert "reject (out-of-distribution)" in rows["green.png"]
    assert not re.search(r"0\.\d{3}", rows["green.png"])
    assert [path.name for path in overlays.iterdir()] == ["lesion.png.heatmap.png"]


def test_predict_refuses_unknown_models(tiny_models: Path, lesion: Path) -> None:
    done = run(tiny_models, "predict", str(lesion), "--model", "unknown")
    assert done.returncode == 1
    assert f"{PLAIN_MODEL}@2" in done.stderr


def test_serve_answers_and_ends_on_sigterm(tiny_models: Path, lesion_png: bytes) -> None:
    process = subprocess.Popen(
        command("serve", "--port", "0"),
        env=environment(tiny_models, "tensorflow"),  # whose own lines would be among the log's
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        address = None
        while address is None:
            lines.append(process.stdout.readline())
            assert lines[-1], f"the service ended: {lines}"
            address = re.search(r"http://127\.0\.0\.1:\d+", lines[-1])
        request = urllib.request.Request(
            f"{address.group()}/predict", lesion_png, {"content-type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["model"]["name"] == PLAIN_MODEL
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=120)
    for line in [*lines, *rest.splitlines()]:
        assert json.loads(line)["level"] in {"INFO", "WARNING"}
        assert "\\u001b" not in line  # no colours
    assert process.returncode in {0, -signal.SIGTERM}


def test_serve_refuses_a_damaged_model(own_models: Path) -> None:
    (own_models / PLAIN_MODEL / "1" / "golden_input.png").unlink()
    done = run(own_models, "serve", "--port", "0")
    assert done.returncode != 0
    assert "golden_input.png" in done.stdout + done.stderr


def test_a_key_that_was_created_opens_the_service(tiny_models: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    arguments = ("keys", "create", "scanner", "--file", str(file), "--days", "30")
    made = run(tiny_models, *arguments, "--scope", "predict", "--scope", "models:read")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key not in file.read_text()
    again = run(tiny_models, *arguments, "--scope", "predict")
    assert again.returncode == 1
    assert "already" in again.stderr
    process = subprocess.Popen(
        command("serve", "--port", "0"),
        env={**environment(tiny_models), "RUNTIME": "openvino", "API_KEYS_FILE": str(file)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = None
        while address is None:
            line = process.stdout.readline()
            assert line, "the service ended"
            assert "AUTHENTICATION IS OFF" not in line
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
        url = f"{address.group()}/models"
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(url, timeout=30)
        refused.value.close()
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=30) as response:
            assert len(json.load(response)["models"]) == 3
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_serve_does_not_open_to_the_network_by_itself(tiny_models: Path) -> None:
    done = run(tiny_models, "serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert done.returncode == 1
    assert "AUTHENTICATION=off" in done.stderr
    assert "Traceback" not in done.stderr
