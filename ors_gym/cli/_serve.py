"""``serve``: an ORS server on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from ors_gym.cli._common import (
    SERVED,
    add_command,
    is_served_here,
    read_port,
    require_module,
)
from ors_gym.errors import InvalidRequestError
from ors_gym.registration import BUNDLED_NAMES


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "serve",
        "serve the bundled environments, your own or a recording, until Ctrl-C",
        "gymnasium:CartPole-v1 my_module:MyEnvironment --port 9000",
    )
    parser.add_argument(
        "environments",
        nargs="*",
        metavar="environment",
        help=f"{SERVED}; the bundled ones if none is named",
    )
    parser.add_argument(
        "--port", type=read_port, default=8080, metavar="N", help="default: 8080"
    )
    parser.add_argument(
        "--cassette",
        metavar="FILE",
        help="serve what ors-gym record kept, in place of environments",
    )
    parser.set_defaults(run=_run)


def _check_class(reference: str) -> None:
    """Refuse a class that cannot be served before a port is opened for it."""
    if is_served_here(reference):
        require_module(reference)
        return
    name = reference.removeprefix("ors/")
    if name in BUNDLED_NAMES:
        raise InvalidRequestError(
            f"{name} is bundled: ors-gym serve without a name serves it; a name is "
            f"{SERVED}"
        )
    raise InvalidRequestError(
        f"{reference!r} cannot be served; what can be is {SERVED}"
    )


def _run(options: argparse.Namespace) -> int:
    from ors_gym.server import run  # noqa: PLC0415

    for reference in options.environments:
        _check_class(reference)
    run(
        options.environments,
        port=options.port,
        cassette=options.cassette,
        on_start=_announce,
    )
    return 0


def _announce(base_url: str) -> None:
    print(f"serving at {base_url} until Ctrl-C", flush=True)  # noqa: T201
