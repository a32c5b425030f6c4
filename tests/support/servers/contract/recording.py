"""The log of what happened, one line of JSON each."""

import contextvars
import json
import os
import time
from typing import Any

SESSION: contextvars.ContextVar[str] = contextvars.ContextVar("session", default="")
_destination: dict[str, int] = {}


def open_log(path: str) -> None:
    """Append to this file from now on."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    _destination["descriptor"] = os.open(path, flags, 0o600)


def log(event: str, environment: str, **fields: Any) -> None:
    """Append one line; a single write to an O_APPEND file is never torn."""
    entry: dict[str, Any] = {"event": event, "environment": environment}
    entry.update(session=SESSION.get(), time=time.time(), **fields)
    line = json.dumps(entry, default=str).encode() + b"\n"
    os.write(_destination["descriptor"], line)
