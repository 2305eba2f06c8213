"""Which code is running: the commit of the checkout, and whether it was changed since."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent
_CODE: Final = ("app", "training", "uv.lock")


@dataclass(frozen=True, slots=True)
class CodeVersion:
    """The code of a process.

    Attributes:
        git_commit: 40 hexadecimal digits; None outside of a git checkout.
        clean: Whether the code is exactly that commit's.
    """

    git_commit: str | None
    clean: bool


def running_code(checkout: Path = CHECKOUT) -> CodeVersion:
    """The version of this project's code."""
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return CodeVersion(None, clean=False)
    return CodeVersion(commit, clean=not changed)


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603  fixed words
        ["git", "-C", str(checkout), *arguments],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()
