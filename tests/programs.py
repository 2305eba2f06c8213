"""Programs that are not Python packages: tests that need one skip where it is missing."""

import os
import shutil

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
