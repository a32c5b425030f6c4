"""The command line: ``python -m ors_gym`` or ``ors-gym``.

Exit codes: 0 if all went well, 1 for an error that is explained on standard error,
2 for a command line that cannot be read, 130 after Ctrl-C, except where a command
serves until then. ``replay`` exits as ``diff`` does.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from ors_gym._shown_text import clean
from ors_gym.cli import (
    _check,
    _demo,
    _eval,
    _export,
    _list,
    _mcp,
    _play,
    _record,
    _report_show_replay,
    _rescore,
    _serve,
    _view,
)
from ors_gym.client._settings import find_version
from ors_gym.errors import ORSError

__all__ = ["main"]

_COMMANDS = (
    _demo,
    _serve,
    _record,
    _list,
    _play,
    _eval,
    _mcp,
    _report_show_replay,
    _view,
    _export,
    _rescore,
    _check,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line; that of the process if None.

    Returns:
        The exit code.

    Example:
        >>> main(["serve", "--port", "nowhere"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    parser = _Parser(
        prog="ors-gym",
        description="Drive ORS servers as Gymnasium environments.",
        epilog="ors-gym COMMAND --help shows the options of a command.",
    )
    version = f"ors-gym {find_version()}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    options = parser.parse_args(
        _join_ranges(sys.argv[1:] if arguments is None else arguments)
    )
    if "run" not in options:
        parser.print_help()
        return 0
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal lacks must not stop a command.
            stream.reconfigure(errors="backslashreplace")
    try:
        code: int = options.run(options)
    except ORSError as error:
        print(f"ors-gym: {clean(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Without a place for the rest
        # of the output, Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            # The terminal shows ^C; the shell's prompt belongs on a line of its own.
            print(file=sys.stderr)  # noqa: T201
        return 130
    return code


def _join_ranges(arguments: Sequence[str]) -> list[str]:
    """Join ``--reward-range -1:1``, whose value argparse takes for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined[-1:] == ["--reward-range"] and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave out the usage: a screen of options would hide what is wrong."""
        self.exit(2, f"{self.prog}: error: {message}\nSee {self.prog} --help\n")
