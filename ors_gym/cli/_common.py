"""What several commands share: which server, which tasks, how to print."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

from ors_gym.client import ORSClient
from ors_gym.display._terminal import clean, say
from ors_gym.env._settings import find_server
from ors_gym.errors import InvalidRequestError

__all__ = [
    "add_json_flag",
    "clean",
    "first_environment",
    "import_from_here",
    "is_address",
    "is_class",
    "open_environment",
    "open_server",
    "read_range",
    "require_module",
    "say",
    "say_json",
]


def say_json(value: Any) -> None:
    """Print a value as JSON, with null for numbers that JSON does not have.

    Args:
        value: Plain JSON values.

    Example:
        >>> say_json({"rate": float("nan")})
        {
          "rate": null
        }
    """
    say(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Let a command print JSON.

    Args:
        parser: The command's parser.
    """
    parser.add_argument("--json", action="store_true", help="print JSON")


def is_address(target: str) -> bool:
    """Say whether a target is a server's address.

    Args:
        target: What the user wrote.

    Example:
        >>> is_address("http://127.0.0.1:8080"), is_address("mine:Environment")
        (True, False)
    """
    return "://" in target


def is_class(target: str) -> bool:
    """Say whether a target is a class to be served.

    Args:
        target: What the user wrote.

    Example:
        >>> is_class("my_module:MyEnvironment"), is_class("math")
        (True, False)
    """
    return ":" in target and not is_address(target)


def import_from_here() -> None:
    """Find modules of the working directory, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def require_module(reference: str) -> None:
    """Check that the module of a class can be found, from here too.

    Args:
        reference: ``module:Class``.

    Raises:
        InvalidRequestError: If there is no such module.

    Example:
        >>> require_module("nowhere:Environment")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ors_gym.errors.InvalidRequestError: module 'nowhere' cannot be imported ...
    """
    import_from_here()
    module = reference.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        # A package of the name's is missing; or the name is empty.
        found = None
    if found is None and module not in sys.modules:
        raise InvalidRequestError(
            f"module {module!r} cannot be imported (run in its directory)"
        )


@contextlib.contextmanager
def open_server(target: str | None) -> Iterator[str]:
    """Give the address of a server.

    Args:
        target: An address; ``module:Class`` to serve it for as long as the block runs;
            None for ``ORS_BASE_URL`` or the bundled environments.

    Yields:
        The base URL.

    Raises:
        InvalidRequestError: If it is neither.
    """
    if target is not None and re.fullmatch(r"[^/\s]*:\d+(?:/\S*)?", target):
        raise InvalidRequestError(f"write the address with http://: http://{target}")
    if target is None or is_address(target):
        yield find_server(target)
    elif is_class(target):
        from ors_gym.server import serve  # noqa: PLC0415

        require_module(target)
        with serve(target) as base_url:
            yield base_url
    else:
        raise InvalidRequestError(
            f"{target!r} is neither an address (http://host:port) nor a class to serve "
            "(module:Class)"
        )


@contextlib.contextmanager
def open_environment(target: str, url: str | None) -> Iterator[tuple[str, str]]:
    """Give an environment and its server.

    Args:
        target: The environment's name, also as ``ors/name``; or ``module:Class`` to
            serve it.
        url: The server of a name; as for `open_server` if None.

    Yields:
        The base URL and the environment's name.

    Raises:
        InvalidRequestError: If a class should be served by another server.
    """
    if is_address(target):
        raise InvalidRequestError(
            f"{target!r} is a server; name its environment, and pass --url {target}"
        )
    if is_class(target) and url is not None:
        raise InvalidRequestError(f"{target!r} is served here; leave out --url")
    with open_server(target if is_class(target) else url) as base_url:
        if is_class(target):
            yield base_url, first_environment(base_url)
        else:
            yield base_url, target.removeprefix("ors/")


def first_environment(base_url: str) -> str:
    """Return the first environment of a server.

    Args:
        base_url: The server's address.
    """
    with ORSClient(base_url) as client:
        return client.list_environments()[0]


def read_range(text: str) -> range:
    """Read which tasks to play.

    Args:
        text: ``N`` for the first N, or ``a:b``.

    Returns:
        The indexes.

    Raises:
        ArgumentTypeError: If it is neither.

    Example:
        >>> read_range("3"), read_range("10:20")
        (range(0, 3), range(10, 20))
    """
    start, colon, stop = text.partition(":")
    try:
        found = range(int(start), int(stop)) if colon else range(int(start))
    except ValueError:
        found = range(0)
    if not found or found.start < 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no tasks; write N for the first N, or a:b"
        )
    return found
