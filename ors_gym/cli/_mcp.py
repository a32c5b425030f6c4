"""``mcp``: an environment for agents that speak MCP."""

from __future__ import annotations

import argparse
import asyncio
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any, Final

from ors_gym.cli._common import (
    add_command,
    add_credential_arguments,
    add_environment_arguments,
    add_tool_schemas_argument,
    client_arguments,
    open_environment,
    read_port,
    read_variable,
    say_aside,
)

_PORT: Final = 8090


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "mcp",
        "let an agent that speaks MCP play; it never sees the reward",
        "maze --task 3 --output run.jsonl",
    )
    add_environment_arguments(parser)
    parser.add_argument(
        "--task",
        type=int,
        metavar="N",
        help="index of the task that every agent plays; by default each agent plays "
        "the next task that has no outcome",
    )
    parser.add_argument(
        "--transport",
        choices=("stdio", "http"),
        default="stdio",
        help="this process's standard streams (the default), or an address for many",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="with http; default: 127.0.0.1"
    )
    parser.add_argument(
        "--port",
        type=read_port,
        default=_PORT,
        metavar="N",
        help=f"with http; default: {_PORT}",
    )
    parser.add_argument(
        "--token",
        type=read_variable,
        metavar="VARIABLE",
        help="the environment variable that holds the token which agents have to send; "
        "required where other machines reach the host",
    )
    parser.add_argument(
        "--max-turns", type=int, metavar="N", help="of an episode; default: no limit"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="JSON lines, as of eval: the rewards are here"
    )
    parser.add_argument(
        "--policy-name",
        default="mcp",
        metavar="NAME",
        help="of the agents, in that file; default: mcp",
    )
    add_tool_schemas_argument(parser)
    add_credential_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with open_environment(options.environment, options.url) as (base_url, name):
        arguments = {
            "env_name": name,
            "base_url": base_url,
            "task": options.task,
            "split": options.split,
            "max_turns": options.max_turns,
            "output": options.output,
            "policy_name": options.policy_name,
            "tool_schemas": options.tool_schemas,
            "secrets": dict(options.secret),
            **_connection(options),
        }
        serving = _serve_http if options.transport == "http" else _serve_stdio
        asyncio.run(serving(options, arguments))
    return 0


def _connection(options: argparse.Namespace) -> dict[str, Any]:
    given = client_arguments(options)
    share = given.pop("share_api_key")
    return {**given, "client_options": {"share_api_key": share}}


async def _serve_http(options: argparse.Namespace, arguments: dict[str, Any]) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from ors_gym.mcp import serve_async  # noqa: PLC0415

    stopped = asyncio.Event()
    _on_signals(stopped.set)
    async with serve_async(
        host=options.host, port=options.port, token=options.token, **arguments
    ) as address:
        print(f"agents play at {address} until Ctrl-C", flush=True)  # noqa: T201
        await stopped.wait()
    _say_where(options.output)


async def _serve_stdio(options: argparse.Namespace, arguments: dict[str, Any]) -> None:
    """Serve until the agent, or a signal, ends it."""
    from ors_gym.mcp import serve_stdio  # noqa: PLC0415

    serving = asyncio.create_task(serve_stdio(**arguments))
    _on_signals(serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        _say_where(options.output)
        # The row is written and the session is deleted. The thread that reads the
        # standard input cannot be interrupted, and Python would wait for it.
        os._exit(0)
    _say_where(options.output)


def _on_signals(stop: Callable[[], object]) -> None:
    # Not by the loop's own `add_signal_handler`, which Windows lacks.
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        if loop.is_closed():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _say_where(output: str | None) -> None:
    if output is not None and pathlib.Path(output).exists():
        say_aside(f"the episodes are in {output}")
