"""What the server process prints: the tracebacks of environments, and nothing else.

The SDK logs each request, and an exception of a prompt or a set-up two or three times
over. Its loggers are module globals; should a later version keep them elsewhere, its
own log shows instead.
"""

from __future__ import annotations

import sys
import traceback

import ors.environment
import ors.server

from ors_gym.server.failures import PlayerMistakeError

__all__ = ["show_tracebacks"]


class _TracebackLog:
    """Stands in for a logger of the SDK; only `exception` prints."""

    def __init__(self) -> None:
        self._shown: BaseException | None = None

    def info(self, event: str, **fields: object) -> None:
        """Ignore what is no fault."""

    warning = info
    error = info

    def exception(self, event: str, **fields: object) -> None:
        """Print the exception that is being handled, once."""
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


def show_tracebacks() -> None:
    """Make the SDK print the tracebacks of environments to standard error."""
    log = _TracebackLog()
    for module in (ors.environment, ors.server):
        vars(module)["logger"] = log
