"""What several commands share: their server, their arguments, how they print."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

from ors_gym._shown_text import clean
from ors_gym.client import ORSClient
from ors_gym.display._terminal import say
from ors_gym.env._settings import find_server
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation
from ors_gym.evaluation._figures import check_range
from ors_gym.evaluation._report import find_place
from ors_gym.protocol._redaction import is_secret_name
from ors_gym.spaces._narrow_tools import check_tool_schemas
from ors_gym.types import JSONObject

_LAST_PORT: Final = 65535


SERVED: Final = "module:Class, gymnasium:ID or reasoning_gym:NAME"
"""What can be served for as long as a command runs."""


def say_json(value: Any) -> None:
    """Print a value as JSON, with null for numbers that JSON does not have.

    Example:
        >>> say_json({"rate": float("nan")})
        {
          "rate": null
        }
    """
    say(json.dumps(_finite(value), indent=2, allow_nan=False))


def say_aside(text: str) -> None:
    """Print a line for a person, apart from the output that a program may read."""
    print(clean(text), file=sys.stderr, flush=True)  # noqa: T201


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def add_command(
    commands: Any, name: str, does: str, example: str
) -> argparse.ArgumentParser:
    """Add a command, with a help that says what it does and shows it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"Example: ors-gym {name} {example}",
    )
    return parser


def add_environment_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a command name an environment, for `open_environment`, and its split."""
    parser.add_argument("environment", help=f"its name, or {SERVED} to serve it")
    add_url_argument(parser, "default: ORS_BASE_URL, or the bundled environments")
    parser.add_argument("--split", help="default: train, or the only one")


def add_url_argument(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Let a command take the address of a server by either of its names."""
    parser.add_argument("--url", "--base-url", dest="url", metavar="URL", help=meaning)


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` to a command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_credential_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a command take a key, headers and secrets, whose values are not arguments.

    Other users of the machine can read the arguments of a process.
    """
    parser.add_argument(
        "--api-key",
        type=read_variable,
        metavar="VARIABLE",
        help="the environment variable that holds the key; default: ORS_API_KEY",
    )
    parser.add_argument(
        "--share-api-key",
        action="store_true",
        help="give the key to the environment too, as its secrets api_key and "
        "OPENREWARD_API_KEY",
    )
    parser.add_argument(
        "--header",
        type=_read_header,
        action="append",
        default=[],
        metavar="NAME=VALUE|NAME=@FILE",
        help="sent with every request, such as X-Deployment=Owner/Name",
    )
    parser.add_argument(
        "--secret",
        type=_read_secret,
        action="append",
        default=[],
        metavar="NAME|NAME=@FILE",
        help="for the environment, from the variable of that name or a file; "
        "NAME:DOMAIN,... says where a gateway may let it out to",
    )


def open_client(options: argparse.Namespace, base_url: str) -> ORSClient:
    """Make a client with the key and the headers of the command line."""
    return ORSClient(base_url, **client_arguments(options))


def client_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the key and the headers of the command line."""
    return {
        "api_key": options.api_key,
        "headers": dict(options.header),
        "share_api_key": options.share_api_key,
    }


def read_variable(name: str) -> str:
    """Read the value of an environment variable.

    Example:
        >>> read_variable("PATH") == os.environ["PATH"]
        True
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # It may be the key itself, so it is not repeated.
        raise argparse.ArgumentTypeError(
            "give the name of an environment variable, not the value itself"
        )
    if not os.environ.get(name):
        raise argparse.ArgumentTypeError(f"the environment variable {name} is not set")
    return os.environ[name]


def _read_file(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error}") from None


def _read_header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[^\s:]+", name):
        # "Authorization: Bearer KEY=", as other programs take it, has no such name.
        raise argparse.ArgumentTypeError("write NAME=VALUE, or NAME=@FILE")
    if value.startswith("@"):
        return name, _read_file(value[1:])
    if is_secret_name(name):
        shown = _show_name(name, value)
        raise argparse.ArgumentTypeError(
            f"other users of this machine could read the value of {shown}; write it "
            f"into a file, and {shown}=@FILE here"
        )
    return name, value


def _read_secret(text: str) -> tuple[str, str | tuple[str, list[str]]]:
    named, equals, source = text.partition("=")
    name, colon, domains = named.partition(":")
    if equals and not source.startswith("@"):
        shown = _show_name(name, source)
        raise argparse.ArgumentTypeError(
            f"other users of this machine could read the value of {shown}; write "
            f"{shown} for the variable of that name, or {shown}=@FILE"
        )
    value = _read_file(source[1:]) if equals else read_variable(name)
    return name, (value, domains.split(",")) if colon else value


def _show_name(name: str, value: str) -> str:
    """Return what stands before a "=", or ``NAME`` where it may be the value itself.

    Keys in base64 end with one or two of them.
    """
    is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) and value.strip("=")
    return name if is_name else "NAME"


def add_tool_schemas_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command narrow the schemas of tools."""
    parser.add_argument(
        "--tool-schemas",
        type=_read_tool_schemas,
        metavar="JSON|@FILE",
        help='narrows arguments: {"move": {"direction": {"enum": ["up", "down"]}}}',
    )


def _read_tool_schemas(text: str) -> Any:
    try:
        if text.startswith("@"):
            text = pathlib.Path(text[1:]).read_text(encoding="utf-8")
        table = json.loads(text)
        check_tool_schemas(table)
    except (OSError, ValueError, InvalidRequestError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return table


@contextlib.contextmanager
def open_environment(target: str, url: str | None) -> Iterator[tuple[str, str]]:
    """Yield the base URL and the name of an environment.

    ``target`` is its name, also as ``ors/name``, on the server at ``url``; or
    ``module:Class``, which is served for as long as the block runs.
    """
    if _is_address(target):
        raise InvalidRequestError(
            f"{target!r} is a server; name its environment, and pass --url {target}"
        )
    if is_served_here(target) and url is not None:
        raise InvalidRequestError(f"{target!r} is served here; leave out --url")
    with open_server(target if is_served_here(target) else url) as base_url:
        if is_served_here(target):
            with ORSClient(base_url) as client:
                name = client.list_environments()[0]
            yield base_url, name
        else:
            yield base_url, target.removeprefix("ors/")


@contextlib.contextmanager
def open_server(target: str | None) -> Iterator[str]:
    """Yield the base URL of a server.

    ``target`` is its address; or ``module:Class``, which is served for as long as the
    block runs; or None for ``ORS_BASE_URL`` or else the bundled environments.
    """
    if target is not None and re.fullmatch(r"[^/\s]*:\d+(?:/\S*)?", target):
        raise InvalidRequestError(f"write the address with http://: http://{target}")
    starts = target is None and not os.environ.get("ORS_BASE_URL")
    if sys.stderr.isatty() and (starts or is_served_here(target or "")):
        say_aside(f"starting {target or 'the bundled environments'} ...")
    if target is None or _is_address(target):
        yield find_server(target)
    elif is_served_here(target):
        from ors_gym.server import serve  # noqa: PLC0415

        require_module(target)
        with serve(target) as base_url:
            yield base_url
    else:
        raise InvalidRequestError(
            f"{target!r} is neither an address (http://host:port) nor something to "
            f"serve ({SERVED})"
        )


def is_name(target: str) -> bool:
    """Say whether a target is an environment's name, not a server or a class.

    Example:
        >>> is_name("math"), is_name("Owner/Name"), is_name("host:80"), is_name("m:C")
        (True, True, False, False)
    """
    return ":" not in target


def _is_address(target: str) -> bool:
    return "://" in target


def is_served_here(target: str) -> bool:
    """Say whether a target names what a command has to serve itself.

    Example:
        >>> is_served_here("my_module:MyEnvironment")
        True
        >>> is_served_here("math"), is_served_here("http://localhost")
        (False, False)
    """
    return ":" in target and not _is_address(target)


def require_module(reference: str) -> None:
    """Check that the module of ``module:Class`` can be imported, also from here.

    What a library serves, as ``gymnasium:CartPole-v1``, is looked for by the server.
    """
    from ors_gym.server import LIBRARIES  # noqa: PLC0415

    _import_from_here()
    module, _, name = reference.partition(":")
    if module in LIBRARIES:
        return
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        # The package of the module is missing, or this is no name of a module.
        found = None
    except Exception as error:
        # Whatever the package of the module raises when it is imported.
        raise InvalidRequestError(
            f"module {module!r} cannot be imported: {type(error).__name__}: "
            f"{error}{find_place(error)}"
        ) from error
    if found is None and module not in sys.modules:
        path = pathlib.PurePath(module)
        if path.suffix == ".py" or len(path.parts) > 1:
            raise InvalidRequestError(
                f"{module!r} is a file; name its module, as {path.stem}:{name}, and "
                "run in its directory"
            )
        raise InvalidRequestError(
            f"module {module!r} cannot be imported (run in its directory)"
        )


def _import_from_here() -> None:
    """Let modules of the working directory be imported, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def read_port(text: str) -> int:
    """Read the number of a port; 0 is any free one.

    Example:
        >>> read_port("8080")
        8080
    """
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"a port is 0 to {_LAST_PORT}")
    return int(text)


def read_range(text: str) -> range:
    """Read which tasks to play: ``N`` for the first N, or ``a:b``.

    Example:
        >>> read_range("3"), read_range("10:20")
        (range(0, 3), range(10, 20))
    """
    start, colon, stop = text.partition(":")
    try:
        found = range(int(start), int(stop)) if colon else range(int(start))
    except ValueError:
        found = range(0)
    if not found or found.start < 0 or found.stop > sys.maxsize:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no tasks; write N for the first N, or a:b"
        )
    return found


def read_reward_range(text: str) -> tuple[float, float]:
    """Read the least and the greatest reward, ``a:b``.

    Example:
        >>> read_reward_range("-1:1")
        (-1.0, 1.0)
    """
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high)
        check_range(found)
    except (ValueError, InvalidRequestError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range; write its ends, the lower one first, as 0:1"
        ) from None
    return found


def summarize(evaluation: Evaluation) -> JSONObject:
    """Return the figures of an evaluation as plain JSON values."""
    return {
        "head": evaluation.head,
        "metrics": evaluation.metrics(""),
        "stop_reasons": evaluation.stop_reasons,
        "by_split": evaluation.by_split,
        "by_tool": evaluation.by_tool,
        "warnings": evaluation.warnings,
        "usage": evaluation.usage,
        "stopped": evaluation.stopped,
    }
