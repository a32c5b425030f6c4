"""``show`` and ``replay``: one episode of an evaluation, as text or sent again."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ors_gym.cli._common import (
    add_json_flag,
    load_evaluation,
    open_server,
    say,
    say_json,
)
from ors_gym.display._cards import step_entry
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Record
from ors_gym.formats._blocks import render_text
from ors_gym.rollout import Episode, replay

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    show = commands.add_parser("show", help="show an episode of an evaluation")
    again = commands.add_parser(
        "replay", help="send an episode's calls again and compare what comes back"
    )
    for parser in (show, again):
        parser.add_argument("file", help="the output of an evaluation")
        parser.add_argument(
            "--row", type=int, default=0, help="which episode; default: 0, the first"
        )
        add_json_flag(parser)
    again.add_argument(
        "--url", help="or module:Class; default: the server that the file names"
    )
    show.set_defaults(run=_show)
    again.set_defaults(run=_replay)


def _show(options: argparse.Namespace) -> int:
    _, record = _find(options)
    if options.json:
        say_json(record.row())
        return 0
    for name, value in record.result().items():
        if value not in ("", None):
            say(f"{name:14}{value}")
    say(f"\n{_write_down(record.episode)}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    server, record = _find(options)
    with open_server(options.url or server) as base_url:
        again = replay(base_url, record.episode, task=record.task)
    if options.json:
        difference = again.difference
        say_json(
            {
                "same": again.same,
                "difference": difference and dataclasses.asdict(difference),
            }
        )
    else:
        say(again)
    return 0 if again.same else 1


def _find(options: argparse.Namespace) -> tuple[str, Record]:
    evaluation = load_evaluation(options.file)
    records = evaluation.records
    if not 0 <= options.row < len(records):
        raise InvalidRequestError(
            f"{options.file} has no row {options.row}; it has {len(records)}, from 0"
        )
    return str(evaluation.head.get("server")), records[options.row]


def _write_down(episode: Episode) -> str:
    entries = [render_text(episode.prompt), *map(step_entry, episode.steps)]
    return "\n\n".join(map(str, entries))
