"""API keys: made, kept as digests in a file of JSON lines, and looked up (ADR-0022).

```
dhk_ID_SECRET                                                      the key, shown once
{"id": ..., "sha256": ..., "scopes": [...], "expires": ...}        its line in the file
```
"""

import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Final

from pydantic import AwareDatetime, Field, ValidationError

from app.access.scopes import Caller, Scope
from app.domain.errors import AccessConfigurationError, NotAuthenticatedError
from app.domain.measurements import Strict

PREFIX: Final = "dhk_"
_NOBODY: Final = "0" * 64
"""Compared with where the id is unknown, so that it takes as long as a wrong secret."""


class ApiKey(Strict):
    """What is kept of a key.

    Attributes:
        id: Names it in the audit log; a new key of the same system has a new one.
        sha256: Of the whole key, in hexadecimal. A key has 256 random bits: there is nothing to
            guess, so that a slow hash would add nothing.
        scopes: What its holder may do.
        expires: From when on it is refused; None for never.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires: AwareDatetime | None = None


Keys = Mapping[str, ApiKey]
"""By id."""


def parse_keys(content: bytes) -> Keys:
    """Read a file of keys; blank lines and those that begin with `#` are passed over.

    Raises:
        ValueError: A line is no key, or an id is there twice; the message has the line's number
            and nothing of its content.
    """
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            key = ApiKey.model_validate_json(line)
        except ValidationError as error:
            places = sorted({".".join(map(str, item["loc"])) or "line" for item in error.errors()})
            raise ValueError(
                f"line {number} is no API key ({', '.join(places)}); `dermhybrid keys create` "
                "writes such lines"
            ) from None
        if key.id in keys:
            raise ValueError(f"line {number}: the id {key.id} is there twice")
        keys[key.id] = key
    return keys


def find_caller(keys: Keys, presented: str, now: datetime) -> Caller:
    """Who holds a key.

    Args:
        keys: All that are valid but for their expiry.
        presented: What was sent.
        now: With its time zone.

    Raises:
        NotAuthenticatedError: No such key, or it has expired. Which of both is said only to
            whoever has the secret.
    """
    key = keys.get(presented.removeprefix(PREFIX).rpartition("_")[0])
    digest = sha256(presented.encode()).hexdigest()
    if not hmac.compare_digest(digest, key.sha256 if key else _NOBODY) or key is None:
        raise NotAuthenticatedError("This API key is not known.", invalid=True)
    if key.expires is not None and key.expires <= now:
        raise NotAuthenticatedError("This API key has expired.", invalid=True)
    return Caller(f"key:{key.id}", frozenset(key.scopes))


def create_key(path: Path, identifier: str, scopes: list[Scope], expires: datetime | None) -> str:
    """Make a key and append its digest to a file, which is made where it is missing.

    Args:
        path: The file of keys.
        identifier: Of the key; no other in the file has it.
        scopes: What its holder may do.
        expires: With its time zone; None for never.

    Returns:
        The key, which cannot be had again.

    Raises:
        AccessConfigurationError: The file cannot be used, or has such an id.
    """
    secret = f"{PREFIX}{identifier}_{token_hex(32)}"
    try:
        key = ApiKey(
            id=identifier,
            sha256=sha256(secret.encode()).hexdigest(),
            scopes=scopes,
            expires=expires.astimezone(UTC) if expires else None,
        )
        content = path.read_bytes() if path.exists() else b""
        if key.id in parse_keys(content):
            raise ValueError(f"there is a key {key.id} already; a new key needs a new id")
        line = f"{key.model_dump_json()}\n".encode()
        # Readable by all: the service often runs as another user, and a digest opens nothing.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line if content.endswith(b"\n") or not content else b"\n" + line)
            os.fsync(file)
        finally:
            os.close(file)
    except ValidationError as error:
        details = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise AccessConfigurationError(details) from None
    except (OSError, ValueError) as error:
        raise AccessConfigurationError(f"{path}: {error}") from error
    return secret
