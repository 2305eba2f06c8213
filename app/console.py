"""How commands say what is wrong: a red sentence on the standard error output."""

from typing import NoReturn

import typer
from rich.console import Console


def complain(message: str) -> None:
    """Say what is wrong; markup in it is shown as it is, for it may name a file."""
    Console(stderr=True).print(message, style="red", highlight=False, markup=False, soft_wrap=True)


def fail(message: str, error: Exception) -> NoReturn:
    """Say what is wrong, and end the command with status 1.

    Raises:
        typer.Exit: Always.
    """
    complain(message)
    raise typer.Exit(1) from error
