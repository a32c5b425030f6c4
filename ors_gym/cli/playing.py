"""``play``: a person plays an episode in the terminal."""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym.cli.common import clean, open_environment, say
from ors_gym.env import ORSEnv
from ors_gym.errors import InvalidRequestError
from ors_gym.types import Block, JSONObject, ToolCall, ToolSpec

__all__ = ["add_parser"]

_ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif"}


class _LeaveError(Exception):
    """Raised when the player has had enough."""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: The subparsers.
    """
    parser = commands.add_parser("play", help="play an episode in the terminal")
    parser.add_argument("environment", help="its name, or module:Class to serve it")
    parser.add_argument(
        "--url", help="default: ORS_BASE_URL, or the bundled environments"
    )
    parser.add_argument("--split", help="default: train, or the only one")
    parser.add_argument("--task", type=int, default=0, help="its index; default: 0")
    parser.add_argument("--images", metavar="DIR", help="where to save pictures")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with open_environment(options.environment, options.url) as (base_url, name):
        env = ORSEnv(name, base_url, split=options.split)
        try:
            _play(env, options.task, options.images)
        finally:
            env.close()
    return 0


def _play(env: ORSEnv, task_index: int, images: str | None) -> None:
    observation, info = env.reset(options={"task_index": task_index})
    gallery = _Gallery(images)
    say(observation)
    gallery.save(info["blocks"])
    total, ended = 0.0, False
    while not ended:
        try:
            call = _ask_for_call(env.tools)
        except _LeaveError:
            say("\nleft the episode")
            break
        observation, reward, terminated, truncated, info = env.step(call)
        say(f"{observation}\n[reward {reward:g}]")
        gallery.save(info["blocks"])
        total += reward
        ended = terminated or truncated
    say(f"total reward: {total:g}")


def _ask_for_call(tools: Sequence[ToolSpec]) -> ToolCall:
    """Have the player choose a tool and fill in its fields."""
    say()
    for number, tool in enumerate(tools, 1):
        description = (tool["description"].strip().splitlines() or [""])[0]
        say(f"  {number}. {tool['name']}  {description}".rstrip())
    by_name = {tool["name"]: tool for tool in tools}
    by_name |= {str(number): tool for number, tool in enumerate(tools, 1)}
    while True:
        chosen = _ask("tool (name or number; q to leave): ").strip()
        if chosen == "q" and chosen not in by_name:
            raise _LeaveError
        if chosen in by_name:
            tool = by_name[chosen]
            return {"tool": tool["name"], "input": _ask_for_input(tool)}
        say(f"there is no tool {chosen!r}")


def _ask_for_input(tool: ToolSpec) -> JSONObject:
    """Ask for each argument; nothing leaves out what may be left out."""
    schema = tool["input_schema"] or {}
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    needed = schema.get("required") or []
    given = {}
    for name, field in properties.items():
        optional = "" if name in needed else ", optional"
        text = _ask(f"  {name} ({_kind(field)}{optional}): ")
        if text or name in needed:
            given[name] = _read(text, field)
    return given


def _kind(field: Any) -> str:
    """Say what is to be written."""
    known = field if isinstance(field, Mapping) else {}
    if "enum" in known:
        return "one of " + ", ".join(json.dumps(value) for value in known["enum"])
    return str(known.get("type", "JSON or text"))


def _read(text: str, field: Any) -> Any:
    """Read an argument: as JSON unless it is text. The server decides about it."""
    if isinstance(field, Mapping) and field.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _ask(question: str) -> str:
    sys.stdout.write(clean(question))
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise _LeaveError
    return line.rstrip("\r\n")


class _Gallery:
    """Saves the pictures of an episode, where the player wants them.

    Args:
        directory: Where; None to save none.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = None if directory is None else pathlib.Path(directory)
        self._saved = 0

    def save(self, blocks: Sequence[Block]) -> None:
        """Save the pictures among the blocks, and say where."""
        if self._directory is None:
            return
        for block in blocks:
            if block.get("type") == "image":
                self._save_one(block, self._directory)

    def _save_one(self, block: Block, directory: pathlib.Path) -> None:
        ending = _ENDINGS.get(str(block.get("mimeType")), "img")
        path = directory / f"image-{self._saved}.{ending}"
        try:
            data = base64.b64decode(str(block.get("data")), validate=True)
            directory.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except (OSError, binascii.Error) as error:
            raise InvalidRequestError(f"{path} cannot be saved: {error}") from None
        self._saved += 1
        say(f"[saved {path}]")
