"""No answer without its record, and no change to a record without a trace."""

import asyncio
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.audit import AuditLog, AuditQueue
from app.audit_chain import read_head, verify
from app.cli import main
from app.domain.errors import AuditDamagedError, AuditUnavailableError
from app.domain.uploads import read_upload
from app.main import create_app
from app.settings import Settings
from tests.conftest import PLAIN_MODEL, REPOSITORY

LARGE = 1 << 30


def write(folder: Path, number: int, max_file_bytes: int = LARGE, together: int = 1) -> None:
    log = AuditLog(folder, max_file_bytes)
    for start in range(0, number, together):
        log.append([{"item": item} for item in range(start, min(start + together, number))])
    log.close()


def lines_of(folder: Path) -> list[bytes]:
    files = sorted(folder.glob("audit-*.jsonl"))
    return [line for path in files for line in path.read_bytes().splitlines(keepends=True)]


def test_records_follow_each_other_over_files_and_restarts(tmp_path: Path) -> None:
    for _ in range(3):
        write(tmp_path, 7, max_file_bytes=1000)
    records = [json.loads(line) for line in lines_of(tmp_path)]
    assert [record["sequence"] for record in records] == list(range(1, 22))
    assert [record["item"] for record in records] == [*range(7)] * 3
    assert len(list(tmp_path.glob("audit-*.jsonl"))) > 2
    assert list(verify(tmp_path)) == []
    assert read_head(tmp_path) == (21, records[-1]["hash"])


Damage = Callable[[list[bytes]], list[bytes]]


def edited(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], lines[4999].replace(b'"item":4999', b'"item":4998'), *lines[5000:]]


def reformatted(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], lines[4999].replace(b'"item":', b'"item": '), *lines[5000:]]


def dropped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], *lines[5000:]]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], lines[5000], lines[4999], *lines[5001:]]


def shortened(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def not_a_record(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], b"[1]\n", *lines[5000:]]


def of_another_type(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], b'{"sequence":"5000","previous":"p","hash":"h"}\n', *lines[5000:]]


def too_deep(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4999], b"[" * 100_000 + b"\n", *lines[5000:9000], b"null\n", *lines[9001:]]


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    write(folder, 10_000, together=100)
    assert list(verify(folder)) == []
    return folder


@pytest.mark.parametrize(
    ("damage", "places"),
    [
        (edited, ["audit-000001.jsonl:5000: record 5000 was changed"]),
        (reformatted, ["audit-000001.jsonl:5000: record 5000 was changed"]),
        (dropped, ["audit-000001.jsonl:5000: record 5000 is expected here, this is 5001"]),
        (swapped, ["audit-000001.jsonl:5000:", "audit-000001.jsonl:5001:"]),
        (shortened, ["head.json: record 10000 is not among the records"]),
        (not_a_record, ["audit-000001.jsonl:5000: this is no record"]),
        (of_another_type, ["audit-000001.jsonl:5000: this is no record"]),
        (too_deep, ["audit-000001.jsonl:5000: this is no", "audit-000001.jsonl:9001: this is no"]),
    ],
)
def test_each_change_is_found_at_its_line(
    ten_thousand: Path, tmp_path: Path, damage: Damage, places: list[str]
) -> None:
    folder = shutil.copytree(ten_thousand, tmp_path / "audit")
    path = folder / "audit-000001.jsonl"
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    result = CliRunner().invoke(main, ["audit", "verify", str(folder)])
    assert result.exit_code == 1
    for place in places:
        assert place in result.output


def test_an_edit_that_renews_its_own_hash_is_found_after_it(tmp_path: Path) -> None:
    write(tmp_path, 3)
    other = tmp_path / "other"
    write(other, 2)
    lines = lines_of(tmp_path)
    (tmp_path / "audit-000001.jsonl").write_bytes(
        b"".join([lines[0], lines_of(other)[1], lines[2]])
    )
    found = list(verify(tmp_path))
    assert [":2: record 2 does not follow" in line for line in found] == [True, False]
    assert ":3: record 3 does not follow" in found[1]


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    write(tmp_path, 30, max_file_bytes=1000)
    (tmp_path / "audit-000002.jsonl").unlink()
    assert any("file 2 is missing" in defect for defect in verify(tmp_path))


def test_an_intact_log_is_said_to_be_so(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["audit", "verify", str(tmp_path)]).output == (
        "answers: no record\nfeedback: no record\ncards: no record\n"
    )
    write(tmp_path, 2)
    result = CliRunner().invoke(main, ["audit", "verify", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output.startswith("answers: intact up to record 2, hash ")


def test_a_log_that_nobody_wrote_to_is_intact(tmp_path: Path) -> None:
    async def open_and_close() -> None:
        await AuditQueue(AuditLog(tmp_path, LARGE)).close()

    asyncio.run(open_and_close())
    assert read_head(tmp_path) == (0, "0" * 64)
    assert list(verify(tmp_path)) == []
    result = CliRunner().invoke(main, ["audit", "verify", str(tmp_path)])
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "answers: no record")
    (tmp_path / "head.json").write_text(json.dumps({"sequence": 0, "hash": "1" * 64}))
    assert len(list(verify(tmp_path))) == 1


def test_a_log_of_a_version_that_left_no_head_before_the_first_record_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "audit-000001.jsonl").touch()
    assert list(verify(tmp_path)) == []
    write(tmp_path, 2)
    assert list(verify(tmp_path)) == []


@pytest.mark.parametrize("head", [None, b"", b"{", b'{"sequence": 1}'])
def test_records_without_a_head_may_lack_the_last_ones(tmp_path: Path, head: bytes | None) -> None:
    write(tmp_path, 5)
    path = tmp_path / "audit-000001.jsonl"
    path.write_bytes(b"".join(lines_of(tmp_path)[:3]))
    (tmp_path / "head.json").unlink()
    if head is not None:
        (tmp_path / "head.json").write_bytes(head)
    (defect,) = verify(tmp_path)
    assert "so that records may be missing at the end" in defect
    assert CliRunner().invoke(main, ["audit", "verify", str(tmp_path)]).exit_code == 1
    for _ in range(2):  # and no start mends it
        with pytest.raises(AuditDamagedError, match=r"head\.json is missing or cannot be read"):
            AuditLog(tmp_path, LARGE)
    assert len(lines_of(tmp_path)) == 3


@pytest.mark.parametrize("torn", [b"{", b'{"sequence":3,"hash":"', b"\x00\xff"])
def test_a_torn_record_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    write(tmp_path, 2)
    path = tmp_path / "audit-000001.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    write(tmp_path, 2)
    assert list(verify(tmp_path)) == []
    assert len(lines_of(tmp_path)) == 4


def test_a_log_that_ends_wrongly_is_not_continued(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = tmp_path / "audit-000001.jsonl"
    lines = lines_of(tmp_path)
    for content, reason in (
        (b"".join(lines[:-1]), "1 records are missing"),
        (b"".join(lines).replace(b'"item":2', b'"item":1'), "its last record was changed"),
    ):
        path.write_bytes(content)
        with pytest.raises(AuditDamagedError, match=reason):
            AuditLog(tmp_path, LARGE)
        assert path.read_bytes() == content


def test_a_log_whose_newest_records_are_others_than_the_head_names_is_not_continued(
    tmp_path: Path,
) -> None:
    for folder in ("own", "other"):
        write(tmp_path / folder, 3)
    path = tmp_path / "own" / "audit-000001.jsonl"
    path.write_bytes((tmp_path / "other" / "audit-000001.jsonl").read_bytes())
    for _ in range(2):  # and no start mends it
        with pytest.raises(AuditDamagedError, match=r"record 3 is not the one that head\.json"):
            AuditLog(tmp_path / "own", LARGE)
    assert len(list(verify(tmp_path / "own"))) == 1


def test_a_head_may_be_older_than_the_records(tmp_path: Path) -> None:
    write(tmp_path, 3)
    head = (tmp_path / "head.json").read_bytes()
    write(tmp_path, 30, max_file_bytes=1000)
    (tmp_path / "head.json").write_bytes(head)  # as a kill leaves it, or a copy that was made first
    write(tmp_path, 1)
    assert list(verify(tmp_path)) == []


def test_a_record_is_on_the_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, synced = AuditLog(tmp_path, LARGE), []
    real_sync = os.fsync

    def sync(file: int) -> None:
        synced.append(lines_of(tmp_path))
        real_sync(file)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    log.append([{"item": 0}])
    assert len(synced[0]) == 1
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        log.append([{"item": 1}])
    assert (lines_of(tmp_path), log.sequence) == (synced[0], 1)
    log.close()


def test_what_could_not_be_taken_back_is_taken_back_before_the_next_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path, LARGE)
    log.append([{"item": 0}])

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        broken.setattr(os, "ftruncate", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                log.append([{"item": 1}])
    log.append([{"item": 2}])
    log.close()
    assert list(verify(tmp_path)) == []
    assert [json.loads(line)["item"] for line in lines_of(tmp_path)] == [0, 2]


def test_only_one_process_writes(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, LARGE)
    with pytest.raises(AuditDamagedError, match="another process"):
        AuditLog(tmp_path, LARGE)
    log.close()
    AuditLog(tmp_path, LARGE).close()


def test_what_the_disk_does_not_take_leaves_no_trace(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write stops half way."""
    log = AuditLog(tmp_path, LARGE)
    log.append([{"item": 0}])
    before = lines_of(tmp_path)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[0]) + 100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append([{"item": 1}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert lines_of(tmp_path) == before
    log.append([{"item": 2}])
    log.close()
    assert list(verify(tmp_path)) == []
    assert [json.loads(line)["item"] for line in lines_of(tmp_path)] == [0, 2]


def test_a_file_that_cannot_be_begun_leaves_the_last_one_open(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_file_bytes=1)
    log.append([{"item": 0}])
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="Too many open files"):
                log.append([{"item": 1}])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with (tmp_path / "another's").open("wb"):  # would have the number of a file that was closed
        log.append([{"item": 2}])
        log.close()
    assert (tmp_path / "another's").read_bytes() == b""
    assert list(verify(tmp_path)) == []
    assert [json.loads(line)["item"] for line in lines_of(tmp_path)] == [0, 2]


def test_records_that_come_together_share_a_write_and_each_is_told(tmp_path: Path) -> None:
    class Counting(AuditLog):
        sizes: list[int] = []  # noqa: RUF012

        def append(self, records):  # type: ignore[no-untyped-def]
            self.sizes.append(len(records))
            if any(record["item"] == "bad" for record in records):
                raise OSError(28, "No space left on device")
            super().append(records)

    async def scenario() -> None:
        queue = AuditQueue(Counting(tmp_path, LARGE))
        await asyncio.gather(*(queue.append({"item": item}) for item in range(20)))
        with pytest.raises(AuditUnavailableError):
            await queue.append({"item": "bad"})
        last = asyncio.create_task(queue.append({"item": 20}))
        await asyncio.sleep(0)
        await queue.close()
        await last

    asyncio.run(scenario())
    assert len(Counting.sizes) < 10
    assert [json.loads(line)["item"] for line in lines_of(tmp_path)] == list(range(21))


def test_a_queue_whose_writer_has_ended_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = AuditLog(tmp_path, LARGE)
        queue = AuditQueue(log)
        queue._worker.cancel()
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            with pytest.raises(AuditUnavailableError):
                await queue.append({"item": 1})
        log.close()

    asyncio.run(scenario())


def test_every_answer_is_recorded_and_nothing_of_the_image(
    tiny_models: Path, tmp_path: Path, lesion_png: bytes
) -> None:
    settings = Settings(models_dir=tiny_models, audit_dir=tmp_path)
    with TestClient(create_app(settings), client=("192.0.2.7", 50000)) as client:
        answer = client.post("/predict", files={"image": ("Ada Lovelace.png", lesion_png)})
        client.post("/predict", files={"image": b"no image"})
        client.post("/predict/batch", files=[("image", lesion_png), ("image", lesion_png)])
        assert "dermhybrid_audit_sequence 3.0" in client.get("/metrics").text
    text = b"".join(lines_of(tmp_path)).decode()
    records = [json.loads(line) for line in text.splitlines()]
    assert list(verify(tmp_path)) == []
    body, first = answer.json(), records[0]
    assert len(records) == 3
    assert first["request_id"] == body["request_id"]
    assert first["model"] == body["model"]
    assert first["answer"]["probabilities"] == pytest.approx(body["probabilities"])
    assert first["answer"]["predicted_class"] == body["predicted_class"]["label"]
    assert first["settings_sha256"] == settings.digest()
    assert {record["upload_sha256"] for record in records} == {sha256(lesion_png).hexdigest()}
    model_input = read_upload(lesion_png).model_input
    assert first["input_sha256"] == sha256(model_input.tobytes()).hexdigest()
    assert first["image"] == {"width": 320, "height": 240, "frame": None}
    assert first["caller"] == "192.0.2.7"
    assert "Lovelace" not in text
    assert "iVBOR" not in text


@pytest.mark.parametrize(("required", "status"), [(True, 503), (False, 200)])
def test_without_a_record_there_is_no_answer_unless_that_is_wanted(
    tiny_models: Path,
    tmp_path: Path,
    lesion_png: bytes,
    monkeypatch: pytest.MonkeyPatch,
    required: bool,
    status: int,
) -> None:
    def full(_file: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    settings = Settings(models_dir=tiny_models, audit_dir=tmp_path, audit_required=required)
    with TestClient(create_app(settings)) as client:
        with monkeypatch.context() as disk:
            disk.setattr("app.audit.os.write", full)
            answer = client.post("/predict", files={"image": lesion_png})
        assert answer.status_code == status
        if required:
            assert answer.json()["type"] == "urn:dermhybrid:problem:audit-unavailable"
        assert "dermhybrid_audit_failures_total 1.0" in client.get("/metrics").text
        assert client.post("/predict", files={"image": lesion_png}).status_code == 200
    assert len(lines_of(tmp_path)) == 1
    assert list(verify(tmp_path)) == []


def test_the_service_does_not_start_on_a_damaged_log(tiny_models: Path, tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "audit-000001.jsonl").write_bytes(lines_of(tmp_path)[0])
    settings = Settings(models_dir=tiny_models, default_model=PLAIN_MODEL, audit_dir=tmp_path)
    with pytest.raises(AuditDamagedError), TestClient(create_app(settings)):
        pass


WRITER = """
import asyncio, sys
from pathlib import Path
from app.audit import AuditLog, AuditQueue

async def main():
    queue = AuditQueue(AuditLog(Path(sys.argv[1]), 20_000))

    async def caller(name):
        item = 0
        while True:
            await queue.append({"item": f"{name}-{item}", "padding": "x" * 300})
            print(f"{name}-{item}", flush=True)
            item += 1

    await asyncio.gather(*(caller(name) for name in "abcdefgh"))

asyncio.run(main())
"""


def test_fifty_kills_lose_no_record_of_an_answer(tmp_path: Path) -> None:
    seed = random.Random(5)  # noqa: S311
    answered: list[str] = []
    for run in range(50):
        script = WRITER.replace('f"{name}-', f'f"{run}-{{name}}-')
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            output = child.stdout.readline()
            time.sleep(seed.uniform(0.0, 0.05))
            os.kill(child.pid, signal.SIGKILL)
            output += child.stdout.read()
        whole = output.decode().splitlines(keepends=True)
        answered += [line.strip() for line in whole if line.endswith("\n")]
    AuditLog(tmp_path, LARGE).close()  # cuts off what the last kill tore
    assert list(verify(tmp_path)) == []
    recorded = {json.loads(line)["item"] for line in lines_of(tmp_path)}
    assert len(answered) > 500
    assert set(answered) <= recorded
