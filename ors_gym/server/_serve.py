"""The two ways to serve environments: from a process of their own, or from this one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from ors_gym.errors import InvalidRequestError, ORSError, needs_extra
from ors_gym.server._load_served import (
    describe_application,
    describe_environment,
    load_environment,
    load_served,
)
from ors_gym.server._process import ServerProcess
from ors_gym.server._web import describe_address, listen
from ors_gym.server.environments import BUNDLED

PLAYER: Final = "ors_gym.testing._cassettes.player:Player"
"""Plays a cassette. It stands above this package, so it is named and not imported."""
Source: TypeAlias = str | type[Any] | Callable[[Any], Any]
"""What can be served."""


@contextmanager
def serve(
    *environments: Source,
    port: int | None = None,
    cassette: str | os.PathLike[str] | None = None,
) -> Iterator[str]:
    """Serve environments, or a recorded server, from a process of their own.

    The process ends with the block. It also ends with this process, in whatever way
    this process ends.

    Args:
        *environments: What to serve; the bundled environments if there are none. The
            first is the server's default. Each is one of these:

            - a class of ors-sdk, also one of a notebook cell or of ``__main__``, or a
              string ``"module:Class"``;
            - ``"gymnasium:CartPole-v1"``: an environment of Gymnasium by its id, also
              with arguments, as in
              ``"gymnasium:FrozenLake-v1?is_slippery=false&render_mode=ansi"``;
            - a class of Gymnasium, or a function that returns an env for a task, a dict
              with ``seed`` and ``split`` (``lambda task: MyEnv()``), or a string
              ``"module:function"``;
            - ``"reasoning_gym:leg_counting"``: a data set of reasoning-gym, also with
              arguments (extra ``reasoning-gym``).
        port: The port, or None for any free one.
        cassette: A file of ``ors-gym record``: it is served in place of environments,
            and none of them is needed.

    Yields:
        The base URL, on the loopback interface.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        InvalidRequestError: If an environment or the cassette cannot be loaded or
            served, for example because a space has no form in JSON, or if the port is
            in use. For an unexpected error the message holds the traceback.
        ConnectionFailedError: If the process ended or was silent.

    Example:
        >>> with serve("ors_gym.server.environments.guess:Guess") as base_url:
        ...     base_url.startswith("http://127.0.0.1:")
        True
    """
    if cassette is not None:
        _check_alone(environments)
        path = os.path.abspath(cassette)  # noqa: PTH100 - no link is followed
        described = [describe_application(PLAYER, path=path)]
    else:
        served = environments or BUNDLED.values()
        described = [describe_environment(one) for one in served]
    with serve_described(described, port) as base_url:
        yield base_url


@contextmanager
def serve_described(
    described: list[dict[str, Any]], port: int | None = None
) -> Iterator[str]:
    """Serve what `describe_environment` or `describe_application` wrote."""
    require_extra()
    process = ServerProcess(described, port or 0)
    try:
        yield process.base_url
    finally:
        process.stop()


def run(
    environments: Sequence[Source] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    cassette: str | os.PathLike[str] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve environments, or a recorded server, from this process.

    It serves until Ctrl-C or SIGTERM.

    Args:
        environments: What to serve, as for `serve`; the bundled environments if there
            are none.
        host: The address to listen on.
        port: The port, or 0 for any free one.
        cassette: A file of ``ors-gym record`` to serve in place of environments.
        on_start: Called with the base URL once the server takes requests.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        InvalidRequestError: If a class cannot be loaded or served, or the port is in
            use.

    Example:
        >>> run(cassette="nothing.jsonl")
        Traceback (most recent call last):
            ...
        ors_gym.errors.InvalidRequestError: ...
    """
    if cassette is not None:
        _check_alone(environments)
        described = describe_application(PLAYER, path=os.fspath(cassette))
        run_served(lambda: load_served([described]), host, port, on_start)
        return
    run_served(
        lambda: [
            load_environment(describe_environment(one)) if isinstance(one, str) else one
            for one in environments or BUNDLED.values()
        ],
        *(host, port, on_start),
    )


def run_served(
    load: Callable[[], Any],
    host: str,
    port: int,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve from this process what a function loads, as `run` does."""
    require_extra()
    from ors_gym.server import _http_server  # noqa: PLC0415 - imports the SDK

    try:
        served = load()
    except ORSError:
        raise
    except Exception as error:
        # Whatever the code of the module raises when it is imported.
        raise _cannot_serve(error) from error
    listener = listen(host, port)
    base_url = describe_address(host, listener)
    with listener:
        try:
            server = _http_server.build_server(
                served,
                host=host,
                on_start=lambda: on_start(base_url) if on_start else None,
            )
        except ORSError:
            raise
        except Exception as error:
            # Whatever a class raises when it is asked for its tools and splits.
            raise _cannot_serve(error) from error
        # uvicorn raises Ctrl-C once more after it has shut down.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _cannot_serve(error: Exception) -> InvalidRequestError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return InvalidRequestError(
        f"Cannot serve: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    )


def _check_alone(environments: Sequence[object]) -> None:
    if environments:
        raise InvalidRequestError(
            "a cassette is served by itself; leave out the environments, or cassette="
        )


def require_extra() -> None:
    """Raise `MissingExtraError` unless the extra ``server`` is installed."""
    alternative = "set ORS_BASE_URL to the address of a server that runs elsewhere"
    with needs_extra("server", "Serving environments", alternative):
        for module in ("ors", "uvicorn", "PIL"):
            # Only the server's process imports the libraries.
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}")
