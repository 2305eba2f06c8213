"""What the threat model says that a thing is held by is there."""

import re

from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_the_tests_and_files_that_it_names_exist() -> None:
    tests = {path.stem for path in (REPOSITORY / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\btest_[a-z_]+\b", TEXT))
    assert len(named) > 12
    assert named <= tests
    for path in re.findall(r"`((?:app|docs|deploy)/[\w./-]+|[\w-]+\.(?:yml|lock))`", TEXT):
        assert (REPOSITORY / path).exists(), path


def test_every_boundary_has_its_threats() -> None:
    boundaries = set(re.findall(r"\((\d)\)", TEXT.split("```")[1]))
    assert boundaries == set(re.findall(r"^## \((\d)\)", TEXT, re.MULTILINE))
    rows = re.findall(r"^\| ([A-Z](?:, [A-Z])*) \|", TEXT, re.MULTILINE)
    assert {letter for row in rows for letter in row.split(", ")} == set("STRIDE")
