"""``export``: the episodes of an evaluation in the formats of other tools."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, get_args

from ors_gym.cli._common import add_command, add_json_flag, say_json
from ors_gym.display._terminal import say
from ors_gym.evaluation import ExportFormat, export


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "export",
        "write the episodes of an evaluation for other tools",
        "run.jsonl --to parquet --success",
    )
    parser.add_argument("file", help="the output of an evaluation")
    parser.add_argument(
        "--to",
        required=True,
        choices=get_args(ExportFormat),
        metavar="FORMAT",
        help=", ".join(get_args(ExportFormat)),
    )
    parser.add_argument(
        "--output",
        help="a file, a directory, or an id for minari; default: beside the run, "
        "and named after it",
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="a preferred and a rejected episode of one task in each row",
    )
    parser.add_argument("--split", help="only this split")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument(
        "--success",
        action="store_true",
        default=None,
        help="only successes",
    )
    outcome.add_argument(
        "--failure",
        action="store_false",
        dest="success",
        help="only failures",
    )
    parser.add_argument("--min-reward", type=float, metavar="R", help="at least this")
    parser.add_argument("--max-reward", type=float, metavar="R", help="at most this")
    add_json_flag(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    done = export(
        options.file,
        options.to,
        options.output,
        pairs=options.pairs,
        split=options.split,
        success=options.success,
        min_reward=options.min_reward,
        max_reward=options.max_reward,
    )
    if options.json:
        say_json(dataclasses.asdict(done))
    else:
        say(done)
    return 0
