"""A file that is read again when it changes, beside the event loop."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final, Generic, TypeVar

import anyio
from anyio import to_thread

from app.domain.errors import AccessConfigurationError

Content = TypeVar("Content")

CHECK_SECONDS: Final = 1.0
"""How long a change may go unnoticed."""
MAX_FILE_BYTES: Final = 1 << 20

logger = logging.getLogger(__name__)


class WatchedFile(Generic[Content]):
    """The newest good content of a file.

    A file that turns bad, half written perhaps, is reported and its last good content stays. One
    that is gone is not good any more: removing it is how everything in it is withdrawn.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Content]) -> None:
        """Read a file; blocks.

        Args:
            path: It may be a link that is changed.
            parse: Makes its content; raises ValueError where it cannot.

        Raises:
            AccessConfigurationError: It cannot be read, or is not what it should be.
        """
        self._path, self._parse = path, parse
        self._identity = self._refused = self._look()
        self._content: Content | None = self._read()
        self._checked_at = monotonic()
        self._threads = anyio.CapacityLimiter(1)

    async def current(self) -> Content | None:
        """The content, at most a second old; None where the file is gone."""
        if monotonic() - self._checked_at >= CHECK_SECONDS:
            # First, so that only one of many callers looks.
            self._checked_at = monotonic()
            await to_thread.run_sync(self._check, limiter=self._threads)
        return self._content

    def _check(self) -> None:
        identity = self._look()
        if identity == self._identity:
            return
        if identity is None:
            self._identity = self._content = None
            logger.error("%s is gone: nothing in it is valid any more", self._path)
            return
        try:
            self._content = self._read()
        except AccessConfigurationError as error:
            if identity != self._refused:  # once
                logger.error("not taken over", extra={"reason": str(error)})  # noqa: TRY400
            self._refused = identity
            if isinstance(error.__cause__, OSError):
                return  # tried again: rights, or descriptors, change without a trace in the file
        else:
            logger.info("%s was read again", self._path)
        self._identity = identity

    def _look(self) -> tuple[int, int, int] | None:
        """What tells one state of the file from another; None where there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> Content:
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > MAX_FILE_BYTES:
                    raise ValueError(f"it has {size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
                return self._parse(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError) as error:
            raise AccessConfigurationError(f"{self._path}: {error}") from error
