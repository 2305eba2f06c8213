"""JSON log lines, and the ids of requests and callers in them; no patient data enters either."""

import logging
import re
import sys
import uuid
from contextvars import ContextVar
from typing import Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.tracing import current_ids

request_id: ContextVar[str] = ContextVar("request_id", default="")
caller: ContextVar[str] = ContextVar("caller", default="")
"""Address that the request came from."""

_ACCEPTED_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def new_request_id(proposed: str | None) -> str:
    """The caller's request id where it is harmless, else a new one."""
    if proposed is not None and _ACCEPTED_REQUEST_ID.fullmatch(proposed):
        return proposed
    return uuid.uuid4().hex


def configure_logging(level: str) -> None:
    """Log JSON lines in UTC to standard output, uvicorn's own messages included.

    Args:
        level: Of this project's loggers. Libraries stay at warnings: Pillow's debug
            messages hold EXIF values, which may name a patient.
    """
    formatter = JsonFormatter(
        "{levelname}{name}{message}",
        style="{",
        timestamp=True,
        rename_fields={"levelname": "level", "name": "logger"},
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    handler.addFilter(_add_ids)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("app").setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.INFO)


def _add_ids(record: logging.LogRecord) -> bool:
    if current := request_id.get():
        record.request_id = current
    for name, value in current_ids().items():
        setattr(record, name, value)
    return True
