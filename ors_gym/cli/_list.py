"""``list``: the environments of a server, their splits, tasks and tools."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from ors_gym.cli._common import (
    SERVED,
    add_command,
    add_credential_arguments,
    add_json_flag,
    add_url_argument,
    is_name,
    open_client,
    open_server,
    say_json,
)
from ors_gym.client import ORSClient
from ors_gym.display._terminal import say
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.formats._schemas import describe_tool
from ors_gym.protocol._dialect import SecretsChannel
from ors_gym.server._embedded import describe_server
from ors_gym.types import JSONObject


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "list",
        "list a server's environments, their splits, tasks and tools",
        "http://localhost:8080",
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="URL|environment",
        help=f"address, {SERVED} to serve it, or one environment's name; "
        "ORS_BASE_URL or the bundled environments by default",
    )
    add_url_argument(parser, "the address, as the other commands take it")
    add_credential_arguments(parser)
    add_json_flag(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    target: str | None = options.target
    name = None
    if target is not None and is_name(target):
        name, target = target.removeprefix("ors/"), None
    if target is not None and options.url is not None:
        raise InvalidRequestError(
            f"the server is named twice, as {target} and as --url {options.url}"
        )
    with (
        open_server(target or options.url) as base_url,
        open_client(options, base_url) as client,
    ):
        names = client.list_environments() if name is None else [name]
        environments = [_describe(client, name) for name in names]
        # The dialect is learned with the first answer.
        dialect = dataclasses.asdict(client.dialect)
        redact = client.settings.redact
        value = {
            "server": _name_server(client.base_url),
            "dialect": dialect | {"secrets": dialect["secrets"].value},
            "environments": environments,
        }
    if options.json:
        say_json(value)
    else:
        _show(value, redact)
    return 0


def _name_server(base_url: str) -> str:
    """Return the address; for a server that ends with this command, what it serves."""
    served = describe_server(base_url)
    if served == "bundled":
        return "the bundled environments"
    return base_url if served is None else f"{', '.join(served)}, served for this list"


def _describe(client: ORSClient, name: str) -> JSONObject:
    splits = [
        {**split, "tasks": _count(client, name, split["name"])}
        for split in client.list_splits(name)
    ]
    return {"name": name, "splits": splits, "tools": client.list_tools(name)}


def _count(client: ORSClient, name: str, split: str) -> int | None:
    """Return the number of tasks; None where the server cannot count them."""
    try:
        return client.num_tasks(name, split)
    except ORSError:
        return None


def _show(value: JSONObject, redact: Callable[[str], str]) -> None:
    def tell(text: str) -> None:
        # A server may give a key as a name.
        say(redact(text))

    tell(value["server"])
    dialect = value["dialect"]
    if dialect["secrets"] == SecretsChannel.NONE.value:
        tell("  takes no secrets (its SDK is older than openreward 0.1.5)")
    elif dialect["num_tasks"] is False:
        tell("  gives tasks as a whole list only (its SDK is older than 0.1.50)")
    for environment in value["environments"]:
        tell(f"\n{environment['name']}")
        for split in environment["splits"]:
            count = "?" if split["tasks"] is None else split["tasks"]
            kind = "" if split["type"] == split["name"] else f" ({split['type']})"
            tasks = "task" if count == 1 else "tasks"
            tell(f"  split {split['name']}{kind}: {count} {tasks}")
        for tool in environment["tools"]:
            terminal = ", or plain text: ends the episode" if "terminal" in tool else ""
            tell(f"  tool {describe_tool(tool)}{terminal}")
            for line in tool["description"].strip().splitlines()[:1]:
                tell(f"      {line}")
