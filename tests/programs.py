"""Programs and files that are not Python packages: tests that need one skip where it is missing."""

import os
import shutil
from pathlib import Path

import pytest


def require_program(name: str) -> str:
    """The path of a program; the test is skipped without it, and fails where CI lacks it."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed (.ci/debian-packages names its package)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def require_peer(path: str) -> Path:
    """A file of an npm package in tests/peers; the test is skipped or fails as above."""
    file = Path(__file__).parent / "peers" / "node_modules" / path
    if not file.exists():
        message = f"{path} is not installed (npm ci --prefix tests/peers)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return file
