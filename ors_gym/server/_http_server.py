"""The HTTP server: ors-sdk under uvicorn. Its only log is environments' tracebacks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import ors
import ors.environment
import ors.server

from ors_gym._shown_text import clean
from ors_gym.errors import InvalidRequestError
from ors_gym.server._uvicorn import StartReportingServer
from ors_gym.server._web import LOOPBACK, WebPageGuard
from ors_gym.server.environments import PlayerMistakeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# Both SDKs keep an idle connection for 60 s (docs/wire.md, "Dialects").
_KEEP_ALIVE_SECONDS: Final = 60


def build_server(
    served: Sequence[Any] | ASGIApp,
    *,
    host: str,
    on_start: Callable[[], None],
    headers: Sequence[tuple[str, str]] = (),
) -> StartReportingServer:
    """Build a server to run on an open socket; every reply carries the headers.

    It serves environments, or an ASGI application that is given in their place. Where
    `host` is an address of the loopback interface, web pages are refused. The SDK
    raises a ValueError if a class has no tool or no split, or two have the same name.
    """
    application = served if callable(served) else _serve_environments(served)
    if host in LOOPBACK:
        application = WebPageGuard(application)
    return StartReportingServer(
        application,
        on_start,
        headers=list(headers),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )


def _serve_environments(environments: Sequence[Any]) -> ASGIApp:
    classes = [_as_environment(environment) for environment in environments]
    # Users who set the SDK's own variable want the SDK's own log.
    if "ORS_LOG_LEVEL" not in os.environ:
        _show_only_tracebacks()
    application: ASGIApp = ors.Server(classes).app
    return application


def _as_environment(environment: Any) -> type[ors.Environment]:
    """Return a class of the SDK: the given one, or one that plays a Gymnasium env."""
    if isinstance(environment, type) and issubclass(environment, ors.Environment):
        return environment
    # Only a server that plays one imports Gymnasium.
    import gymnasium  # noqa: PLC0415

    from ors_gym.server.adapters._gymnasium import as_environment  # noqa: PLC0415

    if isinstance(environment, type) and not issubclass(environment, gymnasium.Env):
        raise InvalidRequestError(
            f"{environment!r} is not a subclass of ors.Environment, nor of "
            "gymnasium.Env"
        )
    return as_environment(environment)


def _show_only_tracebacks() -> None:
    """Replace the SDK's loggers, which log each request and some exceptions thrice.

    The loggers are module globals. Should a later version of the SDK keep them
    elsewhere, its own log shows instead.
    """
    log = _TracebackLog()
    for module in (ors.environment, ors.server):
        vars(module)["logger"] = log


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
        sys.stderr.write(clean(f"ors_gym server: {event} {where}").rstrip() + "\n")
        traceback.print_exception(error)
        sys.stderr.flush()
