"""Programs and files that are not Python packages: tests that need one skip where it is missing."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

PEERS = Path(__file__).parent / "peers"
"""npm packages, and servers made of them."""


def require_program(name: str) -> str:
    """The path of a program; the test is skipped without it, and fails where CI lacks it.

    Packages of the virtual environment bring programs of the same names that are not meant.
    """
    own = Path(sys.prefix) / "bin"
    folders = [f for f in os.get_exec_path() if Path(f) != own]
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        do_without(f"{name} is not installed (.ci/debian-packages names its package)")
    return path


def do_without(message: str) -> NoReturn:
    """Skip the test for want of something that is named; fail in CI, which has it."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def require_peers() -> Path:
    """The folder of the npm packages; the test is skipped without them, and fails in CI."""
    if not (PEERS / "node_modules").is_dir():
        do_without("the test peers are not installed: npm ci --prefix tests/peers")
    return PEERS


def require_peer(path: str) -> Path:
    """A file of one of these packages."""
    return require_peers() / "node_modules" / path
