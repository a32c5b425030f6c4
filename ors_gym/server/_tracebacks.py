"""What the server process prints of a failure: the traceback of an environment's fault.

The SDK logs each request, and an exception of a prompt or a set-up two or three times.
Its loggers are module globals. Should a later version keep them elsewhere, the SDK's
own log shows instead.
"""

from __future__ import annotations

import importlib
import sys
import traceback


class PlayerMistakeError(Exception):
    """Raised by a tool to report a mistake of the player, such as wrong SQL.

    The player is told, as of any tool that raises. The server process prints no
    traceback, because the environment is not at fault.

    Example:
        >>> raise PlayerMistakeError("no such table: customer")
        Traceback (most recent call last):
            ...
        ors_gym.server.PlayerMistakeError: no such table: customer
    """

    # So that a traceback shows where to import it from.
    __module__ = "ors_gym.server"


class _TracebackLog:
    """Stands in for a logger of the SDK; only `exception` prints."""

    def __init__(self) -> None:
        self._shown: BaseException | None = None

    def info(self, event: str, **fields: object) -> None:
        """Print nothing."""

    warning = info
    error = info

    def exception(self, event: str, **fields: object) -> None:
        """Print the exception being handled, unless it was printed already."""
        error = sys.exception()
        if error is None or error is self._shown:
            return
        self._shown = error
        if isinstance(error, PlayerMistakeError):
            return
        where = fields.get("tool") or fields.get("env_name") or ""
        sys.stderr.write(f"ors_gym server: {event} {where}".rstrip() + "\n")
        traceback.print_exception(error)
        sys.stderr.flush()


def show_only_tracebacks() -> None:
    """Replace the SDK's loggers in this process."""
    log = _TracebackLog()
    for module in ("ors.environment", "ors.server"):
        vars(importlib.import_module(module))["logger"] = log
