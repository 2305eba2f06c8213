"""Files of a log go elsewhere, and whatever is missing afterwards is still found."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app import audit_archive
from app.audit import LOCK_NAME, AuditLog
from app.audit_archive import archive
from app.audit_chain import FileEnd, log_files, read_anchor, read_head, verify
from app.audit_report import read_reports
from app.cli import main
from app.domain.errors import AnswerNotFoundError, AuditDamagedError
from app.feedback import FEEDBACK_FOLDER, find_answer

FILE_BYTES = 1000
NUM_RECORDS = 30


def write(folder: Path, number: int = NUM_RECORDS) -> None:
    log = AuditLog(folder, FILE_BYTES)
    for item in range(number):
        log.append([{"item": item}])
    log.close()


def records_of(*folders: Path) -> list[dict[str, Any]]:
    files = [path for folder in folders for path in log_files(folder)]
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["audit", *map(str, arguments)])
    return result.exit_code, result.output


def contents(*folders: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for folder in folders for path in sorted(folder.glob("*.json*"))
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write(tmp_path / "log")
    write(tmp_path / "log" / FEEDBACK_FOLDER)
    return tmp_path / "log"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_both_parts_of_an_archived_log_are_verified(log: Path, kept: Path) -> None:
    before, num_files = records_of(log), len(log_files(log))
    exit_code, output = run("archive", log, kept)
    assert exit_code == 0, output
    assert f"answers: {num_files - 1} files moved; archived: up to record" in output
    assert len(log_files(log)) == 1
    assert len(log_files(log / FEEDBACK_FOLDER)) == 1
    assert records_of(kept, log) == before
    anchor = read_anchor(log)
    assert anchor is not None
    assert read_head(kept) == anchor[1:]
    newest = before[-1]["hash"]
    told = f"records up to {anchor.sequence} are archived, hash {anchor.hash}"
    exit_code, output = run("verify", log)
    assert (exit_code, output.splitlines()[0]) == (
        0,
        f"answers: intact up to record {NUM_RECORDS}, hash {newest}; {told}",
    )
    exit_code, output = run("verify", kept)
    assert (exit_code, output.splitlines()[0]) == (
        0,
        f"answers: intact up to record {anchor.sequence}, hash {anchor.hash}",
    )
    exit_code, output = run("verify", kept, log)
    assert (exit_code, output.splitlines()[1].split(",")[0]) == (
        0,
        f"feedback: intact up to record {NUM_RECORDS}",
    )
    assert run("archive", log, kept)[1].startswith("answers: 0 files moved; archived: up to")


def test_a_service_goes_on_while_its_log_is_archived(log: Path, kept: Path, tmp_path: Path) -> None:
    service = AuditLog(log, FILE_BYTES)
    (log / "head.json.new").write_bytes(b"")  # as between its two steps
    for item in range(20):
        service.append([{"item": item}])
        if item % 5 == 0:
            list(archive(log, kept))
            assert list(verify(log)) == []
    service.close()
    write(log, 7)
    second = tmp_path / "second"
    list(archive(log, second))
    write(log, 7)
    assert [record["sequence"] for record in records_of(kept, second, log)] == [*range(1, 65)]
    assert run("verify", kept, second, log)[0] == 0
    assert run("verify", second)[0] == 0
    exit_code, output = run("verify", kept, log)
    assert exit_code == 1
    assert "the folder before it ends with" in output
    with pytest.raises(AuditDamagedError, match="the folder before it ends with"):
        list(archive(log, kept))


def test_what_a_service_is_writing_stops_no_archive(log: Path, kept: Path) -> None:
    with log_files(log)[-1].open("ab") as newest:
        newest.write(b'{"half')
    list(archive(log, kept))
    assert len(log_files(log)) == 1
    write(log, 1)
    assert list(verify(log)) == []


def test_a_log_goes_on_after_a_file_without_records(log: Path, kept: Path) -> None:
    following = len(log_files(log)) + 1
    (log / f"audit-{following:06d}.jsonl").touch()  # a full disk took the file, and no record
    list(archive(log, kept))
    assert log_files(log)[-1].stat().st_size == 0
    assert list(verify(log)) == []
    write(log, 3)
    assert list(verify(log)) == []
    assert records_of(log)[0]["sequence"] == NUM_RECORDS + 1
    log_files(log)[-1].unlink()
    with pytest.raises(AuditDamagedError, match="3 records are missing"):
        AuditLog(log, FILE_BYTES)


@pytest.mark.parametrize("at", range(24))  # the beginning, one file, and the next
def test_a_stop_anywhere_loses_nothing_and_the_next_run_ends_it(
    log: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before a step and after it; a second archive, which begins in the middle of the chain."""

    class StoppedError(Exception):
        pass

    step = 0

    def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            nonlocal step
            step += 1
            if step == at:
                raise StoppedError
            return function(*arguments, **named)

        return called

    list(archive(log, tmp_path / "first"))
    write(log, 12)
    whole = records_of(tmp_path / "first", log)
    with monkeypatch.context() as patched:
        for owner, name in (
            (Path, "replace"),
            (Path, "unlink"),
            (os, "fsync"),
            (audit_archive, "_write"),
            (audit_archive, "_copy"),
        ):
            patched.setattr(owner, name, stopping(getattr(owner, name)))
        try:
            list(archive(log, kept))
        except StoppedError:
            pass
        else:
            assert at == 0
    found = {record["sequence"]: record for record in records_of(tmp_path / "first", kept, log)}
    assert [found[number] for number in sorted(found)] == whole
    assert list(verify(log)) == []
    assert list(verify(kept)) == []
    assert run("verify", tmp_path / "first", kept, log)[0] == 0
    AuditLog(log, FILE_BYTES).close()
    list(archive(log, kept))
    assert records_of(tmp_path / "first", kept, log) == whole
    assert len(log_files(log)) == 1
    assert run("verify", tmp_path / "first", kept, log)[0] == 0


def test_a_service_does_not_write_to_a_file_that_is_archived(log: Path, kept: Path) -> None:
    list(archive(log, kept))
    newest = log_files(kept)[-1]
    for path in log_files(log):
        path.unlink()
    shutil.copy(kept / "head.json", log)
    shutil.copy(newest, log)  # as a stop before its removal leaves it
    write(log, 1)
    assert (log / newest.name).read_bytes() == newest.read_bytes()
    assert [record["sequence"] for record in records_of(log)][-1] == read_head(kept)[0] + 1  # type: ignore[index]


def test_a_full_disk_has_room_once_the_first_file_is_gone(
    log: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, first = records_of(log), log_files(log)[0]
    write_file = audit_archive._write

    def full(path: Path, content: dict[str, int | str]) -> None:
        if path.parent == log and first.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write_file(path, content)

    monkeypatch.setattr(audit_archive, "_write", full)
    list(archive(log, kept))
    assert records_of(kept, log) == whole
    assert list(verify(log)) == []


def test_files_that_were_moved_by_hand_are_adopted(log: Path, kept: Path) -> None:
    kept.mkdir()
    for path in log_files(log)[:-1]:
        shutil.move(path, kept)
    assert list(verify(log)) != []
    assert run("verify", kept, log)[0] == 0
    list(archive(log, kept))
    assert list(verify(log)) == []
    assert read_head(kept) == read_anchor(log)[1:]  # type: ignore[index]


def drop_a_file(log: Path) -> None:
    log_files(log)[0].unlink()


def drop_the_anchor(log: Path) -> None:
    (log / "archived.json").unlink()


def drop_the_head(log: Path) -> None:
    (log / "head.json").unlink()


def garble_the_anchor(log: Path) -> None:
    (log / "archived.json").write_text("{}")


def forge_the_hash(log: Path) -> None:
    anchor = read_anchor(log)
    assert anchor is not None
    (log / "archived.json").write_text(json.dumps({**anchor._asdict(), "hash": "1" * 64}))


def forge_the_sequence(log: Path) -> None:
    anchor = read_anchor(log)
    assert anchor is not None
    (log / "archived.json").write_text(json.dumps({**anchor._asdict(), "sequence": 1}))


@pytest.mark.parametrize(
    ("damage", "defect"),
    [
        (drop_a_file, "is missing before it"),
        (drop_the_anchor, "file 1 is missing before it"),
        (drop_the_head, "head.json: it is missing"),
        (garble_the_anchor, "this does not say what is archived"),
        (forge_the_hash, "does not follow the one before it"),
        (forge_the_sequence, "record 2 is expected here"),
    ],
)
def test_damage_after_archiving_is_found_and_archives_nothing(
    log: Path, kept: Path, damage: Callable[[Path], None], defect: str
) -> None:
    list(archive(log, kept))
    write(log, 20)
    damage(log)
    exit_code, output = run("verify", log)
    assert exit_code == 1
    assert defect in output
    before = contents(log, kept)
    if damage is not drop_the_anchor:  # which the archive can renew
        exit_code, output = run("archive", log, kept)
        assert exit_code == 1
        assert "Nothing was moved" in output
        assert contents(log, kept) == before


def test_a_deletion_that_the_anchor_was_moved_over_is_found_beside_the_archive(
    log: Path, kept: Path
) -> None:
    list(archive(log, kept))
    write(log, 20)
    path = log_files(log)[0]
    last = json.loads(path.read_bytes().splitlines()[-1])
    forged = FileEnd(int(path.stem[-6:]), last["sequence"], last["hash"])
    path.unlink()
    (log / "archived.json").write_text(json.dumps(forged._asdict()))
    assert list(verify(log)) == []  # the chain cannot tell; the heads that were kept can
    assert run("verify", kept, log)[0] == 1
    assert run("archive", log, kept)[0] == 1


@pytest.mark.parametrize("folder", ["", FEEDBACK_FOLDER])
def test_a_changed_log_is_not_archived(log: Path, kept: Path, folder: str) -> None:
    path = log_files(log / folder)[1]
    path.write_bytes(path.read_bytes().replace(b'"item":', b'"item":1', 1))
    before = contents(log)
    exit_code, output = run("archive", log, kept)
    assert exit_code == 1
    assert f"{path}:1: record" in output
    assert contents(log) == before
    assert log_files(kept) == []


def test_a_copy_that_is_not_the_same_is_not_used(
    log: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(log)
    monkeypatch.setattr(audit_archive, "_is_same", lambda *_: False)
    exit_code, output = run("archive", log, kept)
    assert exit_code == 1
    assert "differs" in output
    assert contents(log) == before
    assert log_files(kept) == []


def test_folders_that_cannot_be_an_archive_are_refused(log: Path, tmp_path: Path) -> None:
    other, copied, changed = tmp_path / "other", tmp_path / "copied", tmp_path / "changed"
    write(other)
    shutil.copytree(log, copied)
    changed.mkdir()
    first = log_files(log)[0]
    (changed / first.name).write_bytes(first.read_bytes()[:-100])
    before = contents(log)
    for destination, reason in (
        (log, "cannot be in it"),
        (log / "old", "cannot be in it"),
        (log.parent, "nor around it"),
        (other, "it differs from"),
        (copied, "it holds the newest file"),
        (changed, "it differs from"),
    ):
        with pytest.raises(AuditDamagedError, match=reason):
            list(archive(log, destination))
        assert contents(log) == before
    assert not (log / "old").exists()


def test_a_folder_that_a_service_writes_is_no_archive(log: Path, kept: Path) -> None:
    service = AuditLog(kept, FILE_BYTES)
    with pytest.raises(AuditDamagedError, match=f"{kept}: another process"):
        list(archive(log, kept))
    service.close()
    assert (kept / LOCK_NAME).exists()


def test_newer_files_can_stay(log: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0 files moved" in run("archive", log, kept, "--days", "1")[1]
    times = {path: datetime.now(UTC) for path in log_files(log)}
    limit = records_of(log)[9]["time"]
    due = [path for path in times if json.loads(path.read_bytes().splitlines()[-1])["time"] < limit]
    assert list(archive(log, kept, datetime.fromisoformat(limit))) == due
    assert list(archive(log, kept, datetime.now(UTC) - timedelta(days=1))) == []
    assert list(verify(log)) == []


def test_archived_answers_are_reported_with_their_folder(tmp_path: Path, kept: Path) -> None:
    folder = tmp_path / "answers"
    log = AuditLog(folder, 1)
    model = {"name": "tiny", "version": 1}
    for name in "abc":
        answer = {"predicted_class": "nv", "confidence": 0.9}
        log.append(
            [{"request_id": name, "model": model, "answer": answer, "input_sha256": "0" * 64}]
        )
    log.close()
    diagnoses = AuditLog(folder / FEEDBACK_FOLDER, 1)
    diagnoses.append([{"answer": {"sequence": 1}, "diagnosis": "nv", "source": "histo"}])
    diagnoses.close()
    before = read_reports(folder)
    list(archive(folder, kept))
    assert read_reports(folder)["tiny@1"].num_answers == 1
    assert read_reports(kept, folder) == before
    shutil.copy(log_files(kept)[0], folder)  # as a stop before its removal leaves it
    assert read_reports(kept, folder) == before
    assert run("report", kept, folder)[0] == 0
    log_files(folder)[0].write_bytes(b"{}\n")
    with pytest.raises(AuditDamagedError, match="not folders of one log"):
        read_reports(kept, folder)
    assert find_answer(folder, "c", None).sequence == 3
    with pytest.raises(AnswerNotFoundError):
        find_answer(folder, "b", None)
