"""Read the settings from the environment; refusals are sentences, without any setting's value."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from pydantic import ValidationError

from app.domain.errors import SettingsRefusedError
from app.settings import Settings

_MIN_LENGTH: Final = 8
"""Of a setting's name that others are compared with: much is one letter away from `RUNTIME`."""

_LENGTH_OF_TWO_SLIPS: Final = 16
"""Of a name that is still recognised with two slips, a shorter one with one: `SSL_CERTIFICATE` is
two from `TLS_CERTIFICATE`, and is not ours."""


def read_settings() -> Settings:
    """The settings as this process's environment has them.

    Raises:
        SettingsRefusedError: A value is not taken, or a variable is named almost as a setting is;
            the message has a line for each.
    """
    sentences = [
        f"{name}: there is no such setting, and {meant} is probably meant. Correct the name, or "
        "take the variable out of the environment."
        for name, meant in find_slips(os.environ)
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        sentences += [_sentence(detail["loc"], detail["msg"]) for detail in details]
        raise SettingsRefusedError("\n".join(sentences)) from None  # the cause has the values
    if sentences:
        raise SettingsRefusedError("\n".join(sentences))
    return settings


def find_slips(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Variables that nothing reads, and whose names are a slip or two away from a setting's.

    Names that are further away belong to others: Kubernetes, OpenTelemetry, the shell.

    Yields:
        The variable, and the setting that is probably meant, both as the environment has them.
    """
    settings = [field.upper() for field in Settings.model_fields]
    for name in names:
        given = name.upper()  # settings are read in any case
        if given in settings:
            continue
        for meant in settings:
            bound = 2 if len(meant) >= _LENGTH_OF_TWO_SLIPS else 1
            if (
                len(meant) >= _MIN_LENGTH
                and abs(len(meant) - len(given)) <= bound
                and count_slips(given, meant) <= bound
            ):
                yield name, meant
                break


def count_slips(given: str, meant: str) -> int:
    """Letters too many, missing, wrong, or exchanged with the next: optimal string alignment."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(given, start=1):
        before, above, row = row, before, [i]
        for j, expected in enumerate(meant, start=1):
            slips = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != expected))
            if i > 1 and j > 1 and letter == meant[j - 2] and given[i - 2] == expected:
                slips = min(slips, above[j - 2] + 1)
            row.append(slips)
    return row[-1]


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    """What pydantic found, by the variable's name; a rule of several settings names them itself."""
    said = message.removeprefix("Value error, ").rstrip(".")
    return f"{str(location[0]).upper()}: {said}." if location else f"{said}."
