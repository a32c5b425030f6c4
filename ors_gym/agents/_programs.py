"""Agent programs: how each is run, connected to an episode, and read."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._reply_json import STRICT_DECODER

SERVER_NAME: Final = "ors"
"""The name that agents know the MCP server by."""
_BUILT_IN: Final = pathlib.Path(__file__).with_name("programs.toml")
_PLAIN: Final = re.compile(r"[\w .:-]*", re.ASCII)
_MOST_USED: Final = 1e15
_PLACEHOLDERS: Final = ("prompt", "mcp_url", "mcp_config", "directory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentProgram:
    """A program that plays through MCP: how it is run, and how its output is read.

    ``{prompt}``, ``{mcp_url}``, ``{mcp_config}`` and ``{directory}`` in arguments,
    ``env`` and ``files`` stand for the prompt, the address of the episode, a JSON file
    that names this address, and the working directory. Without ``{prompt}`` in the
    command, the program reads the prompt from its standard input.

    Args:
        command: The program and its first arguments.
        arguments: Groups of arguments that follow. A group is left out if its option
            is in the command already.
        files: Files of the working directory, by name.
        env: Environment variables that it is given.
        pass_env: Names of variables that it is given as they are; ``*`` stands for any
            characters.
        usage: How its output tells what it used. ``line`` holds the fields by which
            such a line of JSON is recognised. Every other name maps to paths in that
            line, such as ``usage.input_tokens``, whose numbers are added up.
        install: How it is installed.
        tried_with: The version that it was tried with.

    Raises:
        InvalidRequestError: If there is no command, or a text stands where a list of
            texts has to.

    Example:
        >>> import dataclasses
        >>> from ors_gym.agents import AGENT_PROGRAMS
        >>> claude = AGENT_PROGRAMS["claude"]
        >>> dataclasses.replace(claude, env={**claude.env, "BASH_MAX": "1"}).command
        ('claude', '-p')
    """

    command: tuple[str, ...]
    arguments: tuple[tuple[str, ...], ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    usage: Mapping[str, Any] | None = None
    install: str = ""
    tried_with: str = ""

    def __post_init__(self) -> None:
        # A text is a list of its characters: "FOO_*" would pass every variable on.
        if not self.command or not _are_texts(self.command):
            raise InvalidRequestError("an agent's command is a list of texts")
        if not _are_texts(self.pass_env):
            raise InvalidRequestError("an agent's pass_env is a list of texts")
        if not all(group and _are_texts(group) for group in self.arguments):
            raise InvalidRequestError("an agent's arguments are lists of texts")
        for table in (self.files, self.env):
            if not all(isinstance(text, str) for text in table.values()):
                raise InvalidRequestError("an agent's files and env hold texts")

    @property
    def name(self) -> str:
        """The program's name without its directory."""
        return os.path.basename(self.command[0])  # noqa: PTH119 - a text, not a path

    @property
    def model(self) -> str:
        """The model that the command names, ``""`` if it names none."""
        for argument, following in itertools.pairwise((*self.command, "")):
            if argument in ("-m", "--model"):
                return following
            if argument.startswith("--model="):
                return argument.removeprefix("--model=")
        return ""

    @property
    def full_command(self) -> tuple[str, ...]:
        """The command, and the arguments that it does not have already."""
        groups = (one for one in self.arguments if not _has_option(self.command, one))
        return (*self.command, *(argument for group in groups for argument in group))

    @classmethod
    def find(cls, command: str | Sequence[str] | AgentProgram) -> AgentProgram:
        """Return a program by its name, or for a command.

        A command whose program is one of `AGENT_PROGRAMS` is given what that needs.

        Raises:
            InvalidRequestError: If the command is empty, or its quotes are not closed.
        """
        if isinstance(command, AgentProgram):
            return command
        if isinstance(command, str):
            if command in AGENT_PROGRAMS:
                return AGENT_PROGRAMS[command]
            try:
                command = shlex.split(command)
            except ValueError as error:
                raise InvalidRequestError(
                    f"the agent's command cannot be read: {error}"
                ) from None
        own = cls(command=tuple(command))
        known = AGENT_PROGRAMS.get(own.name)
        return own if known is None else dataclasses.replace(known, command=own.command)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """Make a program from its table, as ``programs.toml`` has it."""
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(table.keys() - names):
            raise InvalidRequestError(f"an agent program has no {unknown[0]!r}")
        return cls(**{name: _as_tuples(value) for name, value in table.items()})


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple | list) and all(
        isinstance(one, str) for one in value
    )


def _as_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_as_tuples, value))
    return value


def _has_option(command: Sequence[str], group: Sequence[str]) -> bool:
    """Say whether a command has a group's option, or the key of ``-c key=value``."""
    option, *values = group
    key = values[0].partition("=")[0] + "=" if values and "=" in values[0] else ""
    return any(
        argument.startswith(f"{option}=")
        or (argument == option and following.startswith(key))
        for argument, following in itertools.pairwise((*command, ""))
    )


def read_programs(path: str | os.PathLike[str]) -> dict[str, AgentProgram]:
    """Read agent programs from a TOML file, by name.

    Args:
        path: A file with a table for each program, in the form of
            ``ors_gym/agents/programs.toml``.

    Returns:
        The programs.

    Raises:
        InvalidRequestError: If the file cannot be read, or describes no programs.

    Example:
        >>> import ors_gym.agents
        >>> place = pathlib.Path(ors_gym.agents.__file__).with_name("programs.toml")
        >>> list(read_programs(place))
        ['claude', 'codex', 'gemini', 'opencode']
    """
    try:
        tables = tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return {name: AgentProgram.from_dict(table) for name, table in tables.items()}
    except (
        InvalidRequestError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise InvalidRequestError(f"{os.fspath(path)}: {error}") from None


AGENT_PROGRAMS: Final[dict[str, AgentProgram]] = read_programs(_BUILT_IN)
"""The programs that are known by name. Entries may be added and replaced."""


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of ``{name}``, and leave other braces alone."""
    parts = text.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        if brace and name in _PLACEHOLDERS:
            filled.append(values[name] + rest)
        else:
            filled.append("{" + part)
    return "".join(filled)


class UsageReader:
    """Adds up what a program says that it used, line by line of its output."""

    def __init__(self, rule: Mapping[str, Any] | None) -> None:
        self._places = dict(rule or {})
        self._line: Mapping[str, Any] = self._places.pop("line", {})
        # Which lines are worth reading. Other values are written in several ways.
        self._marks = [
            value.encode()
            for value in self._line.values()
            if isinstance(value, str) and _PLAIN.fullmatch(value)
        ]
        self.usage: dict[str, float] = {}

    def read(self, line: bytes) -> None:
        """Take a line of the output; whatever is no such line is passed over."""
        if not self._places or not all(mark in line for mark in self._marks):
            return
        try:
            value = STRICT_DECODER.decode(line.decode())
        except (ValueError, RecursionError):
            return
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping) and self._line.items() <= one.items():
                self._add(one)

    def _add(self, told: Mapping[str, Any]) -> None:
        for name, places in self._places.items():
            numbers = [
                number for place in places for number in _numbers_at(told, place)
            ]
            if numbers:
                self.usage[name] = self.usage.get(name, 0) + sum(numbers)


def _numbers_at(told: Any, place: str) -> Iterator[float]:
    for name in place.split("."):
        told = told.get(name) if isinstance(told, Mapping) else None
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    if is_number and 0 <= told < _MOST_USED:
        yield told
