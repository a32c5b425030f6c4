"""``serve``: an ORS server on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: The subparsers.
    """
    parser = commands.add_parser(
        "serve", help="serve the bundled environments, or your own, until Ctrl-C"
    )
    parser.add_argument(
        "environments",
        nargs="*",
        metavar="module:Class",
        help="environment classes to serve; the bundled ones if none is named",
    )
    parser.add_argument("--port", type=int, default=8080, help="default: 8080")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ors_gym.server import run  # noqa: PLC0415

    # As `python -m` does, so that module:Class finds a module of this folder.
    sys.path.insert(0, "")
    run(options.environments, port=options.port, on_start=_announce)
    return 0


def _announce(base_url: str) -> None:
    print(f"serving at {base_url} until Ctrl-C", flush=True)  # noqa: T201
