"""A container's quota counts, in both versions of control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.inference.processors import CGROUPS, available_processors
from tests.conftest import REPOSITORY


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def count(root: Path, membership: str, **files: str) -> int:
    """Processors, by the contents of files of control groups."""
    for name, text in files.items():
        path = root / "mounted" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "cgroup").write_text(membership)
    return available_processors(root / "mounted", root / "cgroup")


@pytest.mark.usefixtures("many")
class TestManyProcessors:
    @pytest.mark.parametrize(
        ("limit", "processors"),
        [
            ("max 100000\n", 64),
            ("200000 100000\n", 2),
            ("150000 100000\n", 2),  # all of the quota can be used
            ("10000 100000\n", 1),
            ("9900000 100000\n", 64),
        ],
    )
    def test_a_container_with_a_quota(self, limit: str, processors: int, tmp_path: Path) -> None:
        assert count(tmp_path, "0::/\n", **{"cpu.max": limit}) == processors

    def test_the_narrowest_of_the_groups_around_counts(self, tmp_path: Path) -> None:
        limits = {
            "kubepods__cpu.max": "800000 100000",
            "kubepods__pod__cpu.max": "300000 100000",
            "kubepods__pod__container__cpu.max": "max 100000",
        }
        assert count(tmp_path, "0::/kubepods/pod/container\n", **limits) == 3

    def test_a_path_of_the_machine_that_the_container_does_not_see(self, tmp_path: Path) -> None:
        assert count(tmp_path, "0::/system.slice/abc\n", **{"cpu.max": "400000 100000"}) == 4

    def test_version_1(self, tmp_path: Path) -> None:
        membership = "4:memory:/a\n3:cpu,cpuacct:/docker/a\n0::/\n"
        files = {
            "cpu__docker__a__cpu.cfs_quota_us": "250000\n",
            "cpu__docker__a__cpu.cfs_period_us": "100000\n",
            "cpu__cpu.cfs_quota_us": "-1\n",
            "cpu__cpu.cfs_period_us": "100000\n",
        }
        assert count(tmp_path, membership, **files) == 3

    def test_without_control_groups(self, tmp_path: Path) -> None:
        assert available_processors(tmp_path, tmp_path / "none") == 64
        assert count(tmp_path, "") == 64


def test_processors_that_the_process_is_kept_from_do_not_count() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from app.inference.processors import available_processors as n; print(n())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True
    )
    assert done.stdout == b"1\n"


def test_a_real_quota(tmp_path: Path) -> None:
    group = CGROUPS / "cpu" / f"dermhybrid-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups of version 1 that may be changed are needed")
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("50000")
        program = (
            f"import os; open({str(group / 'tasks')!r}, 'w').write(str(os.getpid()));"
            "from app.inference.processors import available_processors as n; print(n())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True
        )
        assert done.stdout == b"1\n"
    finally:
        group.rmdir()
