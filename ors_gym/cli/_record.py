"""``record``: keep what a server answers, to play it again without the server."""

from __future__ import annotations

import argparse
from typing import Any

from ors_gym.cli._common import add_command, read_port, say_aside


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "record",
        "keep what a server answers in a file, until Ctrl-C; serve --cassette plays it",
        "http://localhost:8080 run.cassette.jsonl",
    )
    parser.add_argument("url", help="the server's address")
    parser.add_argument("file", help="continued if it is there; it holds no secret")
    parser.add_argument(
        "--port",
        type=read_port,
        default=0,
        metavar="N",
        help="where clients reach the server meanwhile; default: any free one",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ors_gym.testing._cassettes.control import run_recorder  # noqa: PLC0415 - not for --help

    def announce(base_url: str) -> None:
        say_aside(f"recording {options.url} to {options.file} until Ctrl-C")
        print(f"clients use {base_url}", flush=True)  # noqa: T201

    run_recorder(options.url, options.file, port=options.port, on_start=announce)
    return 0
