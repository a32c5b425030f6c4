"""``rescore``: another reward for the episodes of an evaluation."""

from __future__ import annotations

import argparse
from typing import Any

from ors_gym.cli._common import (
    add_command,
    add_json_flag,
    read_reward_range,
    say_json,
    summarize,
)
from ors_gym.cli._eval import load_callable
from ors_gym.display._terminal import say
from ors_gym.evaluation import rescore


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "rescore",
        "give the episodes of an evaluation another reward",
        "run.jsonl --scorer my_module:score --output new.jsonl",
    )
    parser.add_argument("file", help="the output of an evaluation")
    parser.add_argument(
        "--scorer",
        required=True,
        metavar="MODULE:FUNCTION",
        help="takes an episode, returns its reward",
    )
    parser.add_argument("--output", help="a new file; the run itself is not changed")
    parser.add_argument(
        "--success-reward",
        type=float,
        metavar="R",
        help="the least reward of a success; default: finished, and above 0",
    )
    parser.add_argument(
        "--reward-range",
        type=read_reward_range,
        metavar="A:B",
        help="the least and the greatest reward that the scorer can give",
    )
    parser.add_argument(
        "--max-concurrent",
        type=int,
        default=8,
        metavar="N",
        help="episodes that are scored at the same time; default: 8",
    )
    add_json_flag(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    found = rescore(
        options.file,
        load_callable("scorer", options.scorer),
        options.output,
        success=options.success_reward,
        reward_range=options.reward_range,
        max_concurrent=options.max_concurrent,
    )
    if options.json:
        say_json(summarize(found))
    else:
        say(found)
    return 0
