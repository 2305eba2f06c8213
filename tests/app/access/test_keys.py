"""API keys are made once, kept as digests, and taken back by editing a file."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.access import watched_file
from app.access.authenticator import Authenticator
from app.access.keys import create_key, find_caller, parse_keys
from app.access.scopes import Scope
from app.access.watched_file import WatchedFile
from app.domain.errors import AccessConfigurationError, NotAuthenticatedError

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_the_file_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    first = create_key(path, "pacs-2026", [Scope.PREDICT], NOW + timedelta(days=1))
    second = create_key(path, "pacs-2027", [Scope.PREDICT, Scope.FEEDBACK], None)
    content = path.read_text()
    for key, identifier in ((first, "pacs-2026"), (second, "pacs-2027")):
        secret = key.removeprefix(f"dhk_{identifier}_")
        assert len(bytes.fromhex(secret)) == 32
        assert secret not in content
    keys = parse_keys(path.read_bytes())
    # Both are valid at once: that is how they are exchanged.
    assert find_caller(keys, first, NOW).id == "key:pacs-2026"
    assert find_caller(keys, second, NOW).scopes == {Scope.PREDICT, Scope.FEEDBACK}


def test_only_the_whole_key_opens(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    key = create_key(path, "pacs", [Scope.PREDICT], NOW)
    other = create_key(path, "other", [Scope.ADMIN], None)
    keys = parse_keys(path.read_bytes())
    wrong = [
        key[:-1],
        f"{key}0",
        key.upper(),
        key.replace("pacs", "other"),
        other.replace("other", "pacs"),
        "dhk_",
        "dhk_pacs_",
        "dhk_nobody_" + "0" * 64,
        "dhk_ä_é",
        json.loads(path.read_text().splitlines()[0])["sha256"],
    ]
    for presented in wrong:
        with pytest.raises(NotAuthenticatedError, match="not known") as refused:
            find_caller(keys, presented, NOW - timedelta(days=1))
        assert refused.value.invalid
    with pytest.raises(NotAuthenticatedError, match="expired"):
        find_caller(keys, key, NOW)
    assert find_caller(keys, key, NOW - timedelta(seconds=1)).id == "key:pacs"


def test_a_file_of_another_hand_is_taken_or_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    key = create_key(path, "pacs", [Scope.PREDICT], None)
    line = path.read_text().strip()
    path.write_text(f"# dermatology\n\n{line}")  # no newline at its end
    create_key(path, "second", [Scope.PREDICT], None)
    assert set(parse_keys(path.read_bytes())) == {"pacs", "second"}
    with pytest.raises(AccessConfigurationError, match="already"):
        create_key(path, "pacs", [Scope.PREDICT], None)
    for bad, message in (
        (line.replace("predict", "everything"), "line 2 .*scopes"),
        (line.replace('"id"', '"name"'), "line 2 .*id"),
        ("x", "line 2"),
        (line, "line 2: the id pacs is there twice"),
        (line.replace("null", '"2027-01-01T00:00:00"'), "line 2 .*expires"),  # of which zone?
    ):
        with pytest.raises(ValueError, match=message) as refused:
            parse_keys(f"{line}\n{bad}".encode())
        assert key not in str(refused.value)
        assert json.loads(line)["sha256"] not in str(refused.value)


@pytest.mark.parametrize("identifier", ["", "A", "a_b", "a b", "x" * 64, "-a"])
def test_ids_are_harmless_in_logs(tmp_path: Path, identifier: str) -> None:
    with pytest.raises(AccessConfigurationError, match="id"):
        create_key(tmp_path / "keys", identifier, [Scope.PREDICT], None)
    assert not (tmp_path / "keys").exists()


def test_the_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "CHECK_SECONDS", 0.0)
    path = tmp_path / "keys.jsonl"
    first = create_key(path, "first", [Scope.PREDICT], None)
    authenticator = Authenticator(path, None)

    async def valid(key: str) -> bool:
        try:
            await authenticator.identify(f"Bearer {key}", "10.0.0.1")
        except NotAuthenticatedError:
            return False
        return True

    async def scenario() -> None:
        assert await valid(first)
        second = create_key(path, "second", [Scope.PREDICT], None)
        assert await valid(first)
        assert await valid(second)
        lines = path.read_text().splitlines()
        path.write_text(f"{lines[1]}\n")  # the first is withdrawn
        assert not await valid(first)
        assert await valid(second)
        path.write_text(f"{lines[1]}\n{lines[0][:30]}")  # half written: what was good stays
        assert await valid(second)
        assert not await valid(first)
        path.write_text("\n".join(lines))
        assert await valid(first)
        path.unlink()  # and so everything is withdrawn
        assert not await valid(second)
        path.write_text("\n".join(lines))
        assert await valid(second)

    asyncio.run(scenario())


def test_a_file_that_could_not_be_read_once_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "CHECK_SECONDS", 0.0)
    path = tmp_path / "keys.jsonl"
    path.write_text("first")
    failures = [OSError("no descriptors")]

    def parse(content: bytes) -> bytes:
        if content == b"second" and failures:
            raise failures.pop()
        return content

    async def scenario() -> None:
        watched = WatchedFile(path, parse)
        path.write_text("second")
        assert await watched.current() == b"first"
        assert await watched.current() == b"second"  # though nothing of the file has changed

    asyncio.run(scenario())


def test_a_start_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccessConfigurationError, match="missing.jsonl"):
        Authenticator(tmp_path / "missing.jsonl", None)
    large = tmp_path / "large"
    large.write_bytes(b"\n" * (watched_file.MAX_FILE_BYTES + 1))
    with pytest.raises(AccessConfigurationError, match="at most"):
        Authenticator(large, None)
