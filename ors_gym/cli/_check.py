"""``check``: does a server do what clients and trainers rely on?"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from ors_gym.cli._common import (
    SERVED,
    add_command,
    add_credential_arguments,
    add_json_flag,
    add_tool_schemas_argument,
    client_arguments,
    is_name,
    open_client,
    open_server,
    say_aside,
    say_json,
)
from ors_gym.display._terminal import say
from ors_gym.testing import check_server

_NOTICE = "ors-gym: this runs tools of the server (--no-calls for none)"


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "check",
        "check a server against the standard; runs some of its tools",
        "http://localhost:8080",
    )
    parser.add_argument(
        "target",
        metavar="URL|environment",
        help=f"address, {SERVED} to serve it, or the name of an environment at "
        "ORS_BASE_URL or of a bundled one",
    )
    parser.add_argument(
        "environment", nargs="?", help="all that the server has if not given"
    )
    parser.add_argument("--split", help="default: train, or the first")
    parser.add_argument(
        "--task", type=int, default=0, metavar="N", help="its index; default: 0"
    )
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
        "--call-timeout",
        type=_read_seconds,
        default=30.0,
        metavar="SECONDS",
        help="default: 30",
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


def _read_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError("write a number of seconds above 0")
    return seconds


def _run(options: argparse.Namespace) -> int:
    reports = []
    server: str | None = options.target
    environment: str | None = options.environment
    if environment is None and is_name(options.target):
        server, environment = None, options.target.removeprefix("ors/")
    with open_server(server) as base_url:
        names = [environment] if environment else _list_names(base_url, options)
        if not options.no_calls:
            say_aside(_NOTICE)
        for name in names:
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


def _list_names(base_url: str, options: argparse.Namespace) -> list[str]:
    with open_client(options, base_url) as client:
        return client.list_environments()
