"""The two ways to serve environments: from a process of their own, or from this one."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ors_gym._web import describe_address, listen
from ors_gym.errors import InvalidRequestError, needs_extra
from ors_gym.server._class_transfer import describe_environment, import_environment
from ors_gym.server._process import ServerProcess
from ors_gym.server.environments import BUNDLED


@contextmanager
def serve(*environments: str | type[Any], port: int | None = None) -> Iterator[str]:
    """Serve environments from a process of their own.

    The process ends with the block. It also ends with this process, in whatever way
    this process ends.

    Args:
        *environments: Environment classes of ors-sdk, also those of a notebook cell or
            of ``__main__``, or strings ``"module:Class"``; the bundled environments if
            there are none. The first is the server's default.
        port: The port, or None for any free one.

    Yields:
        The base URL, on the loopback interface.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        InvalidRequestError: If an environment cannot be loaded or served, or the port
            is in use; the message holds the traceback of the process.
        ConnectionFailedError: If the process ended or was silent.

    Example:
        >>> with serve("ors_gym.server.environments.guess:Guess") as base_url:
        ...     base_url.startswith("http://127.0.0.1:")
        True
    """
    require_extra()
    described = [describe_environment(one) for one in environments or BUNDLED.values()]
    process = ServerProcess(described, port or 0)
    try:
        yield process.base_url
    finally:
        process.stop()


def run(
    environments: Sequence[str | type[Any]] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve environments from this process, until Ctrl-C or SIGTERM.

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
    from ors_gym.server import _http_server  # noqa: PLC0415 - imports the SDK

    try:
        classes = [
            import_environment(one) if isinstance(one, str) else one
            for one in environments or BUNDLED.values()
        ]
    except (ImportError, ValueError) as error:
        raise InvalidRequestError(
            f"Cannot serve: {type(error).__name__}: {error}"
        ) from error
    listener = listen(host, port)
    base_url = describe_address(host, listener)
    with listener:
        try:
            server = _http_server.build_server(
                classes,
                host=host,
                on_start=lambda: on_start(base_url) if on_start else None,
            )
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"Cannot serve: {error}") from error
        # uvicorn raises Ctrl-C once more after it has shut down.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def require_extra() -> None:
    """Raise `MissingExtraError` unless the extra ``server`` is installed."""
    alternative = "set ORS_BASE_URL to the address of a server that runs elsewhere"
    with needs_extra("server", "Serving environments", alternative):
        for module in ("ors", "uvicorn", "PIL"):
            # Only the server's process imports the libraries.
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}")
