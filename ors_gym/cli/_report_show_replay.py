"""``report``, ``show`` and ``replay``: what is done with an evaluation's output."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ors_gym.cli._common import (
    add_command,
    add_credential_arguments,
    add_json_flag,
    add_url_argument,
    open_client,
    open_server,
    require_module,
    say_aside,
    say_json,
    summarize,
)
from ors_gym.display._cards import step_entry
from ors_gym.display._terminal import say
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation._evaluate import read_env_arguments
from ors_gym.evaluation._page import as_page
from ors_gym.formats._blocks import render_text
from ors_gym.rollout import Episode, Replay, replay
from ors_gym.types import JSONObject


def add_parser(commands: Any) -> None:
    report = add_command(
        commands,
        "report",
        "show the figures of an evaluation, or compare two",
        "run.jsonl --html report.html",
    )
    show = add_command(
        commands, "show", "show an episode of an evaluation", "run.jsonl --row 3"
    )
    again = add_command(
        commands,
        "replay",
        "send an episode's calls again and compare what comes back",
        "run.jsonl --row 3",
    )
    for parser, run in ((report, _report), (show, _show), (again, _replay)):
        parser.add_argument("file", help="the output of an evaluation")
        add_json_flag(parser)
        parser.set_defaults(run=run)
    report.add_argument(
        "other", nargs="?", help="another one, which the first is compared with"
    )
    report.add_argument(
        "--html", metavar="FILE", help="write a page that needs no network"
    )
    for parser in (show, again):
        parser.add_argument(
            "--row",
            type=int,
            default=0,
            metavar="N",
            help="which episode; default: 0, the first",
        )
    add_credential_arguments(again)
    add_url_argument(
        again,
        "or module:Class; default: what was played, started again if it was served "
        "here, else ORS_BASE_URL, or its address",
    )


def _report(options: argparse.Namespace) -> int:
    _check_page(options)
    found = _load(options.file)
    other = None if options.other is None else _load(options.other)
    if options.json:
        value = summarize(found)
        if other is not None:
            value["comparison"] = dataclasses.asdict(found.compare(other))
        say_json(value)
    elif other is None:
        _say_figures(options.file, found)
    else:
        _say_both(options, found, other)
    if options.html is not None:
        # Last: plots take longer than all the rest.
        page = _as_page(found, other, options)
        try:
            written = pathlib.Path(options.html).absolute()
            written.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InvalidRequestError(f"the page cannot be written: {error}") from None
        say_aside(f"wrote {written}")
    return 0


def _check_page(options: argparse.Namespace) -> None:
    """Refuse to write the page over a run that it is made of."""
    for run in (options.file, options.other):
        with contextlib.suppress(OSError, TypeError):  # there is no such file yet
            if os.path.samefile(run, options.html):  # noqa: PTH121 - either may be None
                raise InvalidRequestError(
                    f"the page would take the place of the run {run}; choose another "
                    "--html"
                )


def _say_both(
    options: argparse.Namespace, found: Evaluation, other: Evaluation
) -> None:
    if found.records and other.records:
        say(f"{options.file} minus {options.other}\n{found.compare(other)}")
    for path, one in ((options.file, found), (options.other, other)):
        say(f"\n{path}")
        _say_figures(path, one)


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


def _show(options: argparse.Namespace) -> int:
    _, record = _find(options)
    if options.json:
        say_json(record.row())
        return 0
    for name, value in record.result().items():
        if value not in ("", None):
            shown = f"{value:.4g}" if isinstance(value, float) else value
            say(f"{name:14}{shown}")
    say(f"\n{_write_down(record.episode)}")
    return 0


def _write_down(episode: Episode) -> str:
    entries = [render_text(episode.prompt), *map(step_entry, episode.steps)]
    return "\n\n".join(map(str, entries))


def _replay(options: argparse.Namespace) -> int:
    """Exit as ``diff`` does: 0 for the same, 1 for a difference, 2 for neither."""
    try:
        head, record = _find(options)
    except ORSError as error:
        say_aside(f"ors-gym: {error}")
        return 2
    try:
        with (
            _open_played(head, options.url) as base_url,
            open_client(options, base_url) as client,
        ):
            given = read_env_arguments(head) | {"secrets": dict(options.secret)}
            again = replay(client, record.episode, task=record.task, **given)
    except ORSError as error:
        again = Replay(record.episode, None, str(error))
    if options.json:
        difference = again.difference
        say_json(
            {
                "same": again.same,
                "difference": difference and dataclasses.asdict(difference),
                "error": again.error,
            }
        )
    elif again.error:
        say_aside(str(again))
    else:
        say(again)
    if again.error:
        return 2
    return 0 if again.same else 1


@contextlib.contextmanager
def _open_played(head: JSONObject, url: str | None) -> Iterator[str]:
    """Yield the base URL of the server that was played, or of one like it."""
    served = [] if head.get("served") == "bundled" else head.get("served")
    if url is None and isinstance(served, list):
        from ors_gym.server import serve  # noqa: PLC0415

        for name in map(str, served):
            require_module(name)
        with serve(*map(str, served)) as base_url:
            yield base_url
        return
    if url is None and not os.environ.get("ORS_BASE_URL"):
        url = str(head.get("server"))
    with open_server(url) as base_url:
        yield base_url


def _find(options: argparse.Namespace) -> tuple[JSONObject, Record]:
    evaluation = _load(options.file)
    records = evaluation.records
    if not 0 <= options.row < len(records):
        raise InvalidRequestError(
            f"{options.file} has no row {options.row}; it has {len(records)}, from 0"
        )
    return evaluation.head, records[options.row]


def _load(path: str) -> Evaluation:
    try:
        return Evaluation.load(path)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None
