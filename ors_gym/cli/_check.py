"""``check``: does a server do what clients and trainers rely on?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ors_gym.cli._common import (
    add_credential_arguments,
    add_json_flag,
    add_tool_schemas_argument,
    client_arguments,
    open_client,
    open_server,
    say_json,
)
from ors_gym.display._terminal import say
from ors_gym.testing import check_server

_NOTICE = "ors-gym: this runs tools of the server (--no-calls for none)"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "check", help="check a server against the contract; runs some of its tools"
    )
    parser.add_argument("target", metavar="URL", help="address, or module:Class")
    parser.add_argument(
        "environment", nargs="?", help="all that the server has if not given"
    )
    parser.add_argument("--split", help="default: train, or the first")
    parser.add_argument("--task", type=int, default=0, help="its index; default: 0")
    calls = parser.add_mutually_exclusive_group()
    calls.add_argument("--no-calls", action="store_true", help="run no tool")
    calls.add_argument(
        "--calls",
        type=_read_calls,
        metavar="JSON",
        help='the calls of one episode: [{"tool": ..., "input": {...}}, ...]; '
        "drawn from the schemas if not given",
    )
    parser.add_argument(
        "--call-timeout", type=float, default=30.0, help="seconds; default: 30"
    )
    add_tool_schemas_argument(parser)
    add_credential_arguments(parser)
    add_json_flag(parser)
    parser.set_defaults(run=_run)


def _read_calls(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"this is not JSON: {error}") from None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) for call in calls):
        raise argparse.ArgumentTypeError(
            'write [{"tool": ..., "input": {...}}], in the order of the episode'
        )
    return calls


def _run(options: argparse.Namespace) -> int:
    if not options.no_calls:
        print(_NOTICE, file=sys.stderr, flush=True)  # noqa: T201
    reports = []
    with open_server(options.target) as base_url:
        for name in _choose(base_url, options):
            report = check_server(
                base_url,
                name,
                calls=False if options.no_calls else options.calls or True,
                split=options.split,
                task_index=options.task,
                call_timeout=options.call_timeout,
                tool_schemas=options.tool_schemas,
                secrets=dict(options.secret),
                # Shown as they come, since all of them may take a minute.
                on_finding=None if options.json else say,
                **client_arguments(options),
            )
            reports.append(report)
            if not options.json:
                say(f"{report.summary}\n")
    if options.json:
        say_json([report.to_dict() for report in reports])
    return 0 if all(report.ok for report in reports) else 1


def _choose(base_url: str, options: argparse.Namespace) -> list[str]:
    if options.environment is not None:
        return [options.environment]
    with open_client(options, base_url) as client:
        return client.list_environments()
