"""Serve from the process itself, until it is told to stop."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from ors_gym.errors import InvalidRequestError, needs_extra
from ors_gym.server.environments import BUNDLED

__all__ = ["require_extra", "run"]


def require_extra() -> None:
    """Check that the extra ``server`` is installed.

    Raises:
        MissingExtraError: If it is not; says how to install it.
    """
    alternative = "set ORS_BASE_URL to the address of a server that runs elsewhere"
    with needs_extra("server", "Serving environments", alternative):
        for module in ("ors", "uvicorn", "PIL"):
            # The libraries are imported in the server's process alone.
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}")


def run(
    environments: Sequence[str | type[Any]] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve environments until Ctrl-C or SIGTERM.

    Args:
        environments: Environment classes of ors-sdk or strings ``"module:Class"``; the
            bundled environments if there are none.
        host: The address to listen on.
        port: The port, or 0 for any free one.
        on_start: Called with the base URL once the server takes requests.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        InvalidRequestError: If a class cannot be loaded or served, or the port is in
            use.
    """
    require_extra()
    from ors_gym.server import _hosting as hosting  # noqa: PLC0415 - imports the SDK

    try:
        classes = [
            hosting.load_environment(one) if isinstance(one, str) else one
            for one in environments or BUNDLED.values()
        ]
    except (ImportError, ValueError) as error:
        raise InvalidRequestError(
            f"Cannot serve: {type(error).__name__}: {error}"
        ) from error
    try:
        listener = hosting.open_socket(host, port)
    except OSError as error:
        raise InvalidRequestError(
            f"Cannot serve on {host} port {port}: {error}"
        ) from error
    shown_host = f"[{host}]" if ":" in host else host
    base_url = f"http://{shown_host}:{listener.getsockname()[1]}"
    with listener:
        try:
            server = hosting.build_server(
                classes, on_start=lambda: on_start(base_url) if on_start else None
            )
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"Cannot serve: {error}") from error
        # uvicorn raises Ctrl-C once more after it has shut down.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
