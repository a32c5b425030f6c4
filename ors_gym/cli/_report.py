"""``report``: the figures of an evaluation, and how two of them differ."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

from ors_gym.cli._common import add_json_flag, load_evaluation, say, say_json, summarize
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation
from ors_gym.evaluation._report import as_page

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "report", help="show the figures of an evaluation, or compare two"
    )
    parser.add_argument("file", help="the output of an evaluation")
    parser.add_argument(
        "other", nargs="?", help="another one, which the first is compared with"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="write a page that needs no network"
    )
    add_json_flag(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    found = load_evaluation(options.file)
    other = None if options.other is None else load_evaluation(options.other)
    if options.html is not None:
        page = _as_page(found, other, options)
        try:
            pathlib.Path(options.html).write_text(page, encoding="utf-8")
        except OSError as error:
            raise InvalidRequestError(f"the page cannot be written: {error}") from None
    if options.json:
        value = summarize(found)
        if other is not None:
            value["comparison"] = dataclasses.asdict(found.compare(other))
        say_json(value)
        return 0
    _say_figures(options.file, found)
    if other is not None:
        say(f"\n{options.other}")
        _say_figures(options.other, other)
        if found.records and other.records:
            say(f"\n{options.file} minus {options.other}\n{found.compare(other)}")
    return 0


def _say_figures(path: str, evaluation: Evaluation) -> None:
    say(evaluation if evaluation.records else f"{path} holds no episodes yet")


def _as_page(
    found: Evaluation, other: Evaluation | None, options: argparse.Namespace
) -> str:
    title = f"Evaluation of {found.head.get('environment', options.file)}"
    if other is None:
        return as_page(title, {options.file: found})
    name = f"{options.file} minus {options.other}"
    # A file compared with itself is shown once.
    both = {options.file: found, options.other: other}
    return as_page(title, both, (name, found.compare(other)))
