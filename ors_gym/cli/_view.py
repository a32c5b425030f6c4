"""``view``: a page of runs that follows them."""

from __future__ import annotations

import argparse
import contextlib
import threading
from typing import Any

from ors_gym.cli._common import add_command, read_port
from ors_gym.evaluation import view


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "view",
        "show runs in a browser while they go on, until Ctrl-C",
        "run.jsonl before.jsonl",
    )
    parser.add_argument("file", help="the output of an evaluation, also of one to come")
    parser.add_argument(
        "other", nargs="?", help="another one, which the first is compared with"
    )
    parser.add_argument(
        "--port", type=read_port, default=0, metavar="N", help="default: any free one"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with view(options.file, options.other, port=options.port) as address:
        print(f"viewing at {address} until Ctrl-C", flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
