"""An agent program as the policy: a process for each episode, which plays over MCP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym._system import check_process_groups
from ors_gym.agents._process import AgentProcess
from ors_gym.agents._programs import (
    SERVER_NAME,
    AgentProgram,
    UsageReader,
    fill,
)
from ors_gym.errors import InvalidRequestError, MissingExtraError, ORSError
from ors_gym.formats import render_text
from ors_gym.formats._blocks import (
    decode_base64,
    read_media_type,
    replace_surrogates,
)
from ors_gym.protocol._redaction import Redactor, is_secret_name
from ors_gym.rollout import Episode, Step, Turn
from ors_gym.types import JSONObject

PROMPT: Final = f"""\
Do the task below. Act through the tools of the MCP server "{SERVER_NAME}" only. Each \
call counts and cannot be taken back. Nobody answers questions. Stop when the task is \
done, or when a tool says that the episode is over.

{{prompt}}"""
"""What an agent is told by default; ``{prompt}`` is the environment's prompt."""

_PASSED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ"),
    *("LANG", "LANGUAGE", "LC_*", "XDG_*_HOME"),
    *("*_PROXY", "*_proxy", "SSL_CERT_*", "*_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
)
"""Names of the environment variables that every agent is given."""
_NEVER_BY_PATTERN: Final = ("ORS_", "OPENREWARD_")
_LOOPBACK: Final = "127.0.0.1,localhost"
_IN_STATE: Final = "ors_gym.CommandPolicy"
_GUARD_SECONDS: Final = 10.0
"""Longer than the guard of a process needs to end it."""
_LAST_WORDS: Final = 500


class CommandPolicy:
    """An agent program as the policy: it plays each episode in a process of its own.

    The process is given the address of its own MCP server, whose tools are those of the
    session, and a fresh working directory. Each call of a tool is a turn, so limits,
    deadlines, outages and rows are those of every other policy. The agent never sees
    the reward.

    If the program ends before the episode, the policy gives up. If its exit code is not
    0 then, the policy raises: the episode has no outcome, and an evaluation plays it
    again when it is resumed. When the episode ends first, further calls are told so,
    and the program has some time to end. At a deadline, after an outage and when the
    run is interrupted or killed, it is ended at once, with all that it started.

    ``Episode.extra`` keeps the ``command``, the ``exit_code`` (128 and its number for a
    signal), whether it was ``ended`` by us, ``stdout`` and ``stderr``, and as ``usage``
    the tokens and the cost that the program told: ``input_tokens``,
    ``cached_input_tokens`` (a part of these), ``output_tokens`` and ``cost_usd``.

    Args:
        command: A name of `AGENT_PROGRAMS`, a command as a text or as a list, or an
            `AgentProgram`. A command whose program is one of `AGENT_PROGRAMS` is given
            the arguments that it needs to play, unless it has them. `AgentProgram` says
            what ``{prompt}`` and the like in it stand for.
        env: Environment variables that it is given; their values may hold placeholders.
        pass_env: Names of variables of this process that it is given, besides
            ``PATH``, ``HOME``, the locale, proxies, and what ``AgentProgram.pass_env``
            names; ``*`` stands for any characters. A variable of ORS, such as
            ``ORS_API_KEY``, has to be named in full.
        prompt: What it is told; ``{prompt}`` is the environment's prompt.
        directory: Where the working directories are kept. If None, they are temporary.
        exit_timeout: Seconds that it may take to end after the end of the episode.
        kept_bytes: How much of each output is kept: its beginning and its end.

    Raises:
        InvalidRequestError: If an argument cannot be right, or the system has no
            process groups, as Windows has none.
        MissingExtraError: If the ``mcp`` package is not installed. When it is called:
            if there is no such program.

    Example:
        >>> from ors_gym.rollout import CommandPolicy
        >>> CommandPolicy("codex exec --model gpt-5.1").program.name
        'codex'
    """

    def __init__(
        self,
        command: str | Sequence[str] | AgentProgram,
        *,
        env: Mapping[str, str] | None = None,
        pass_env: Sequence[str] = (),
        prompt: str = PROMPT,
        directory: str | os.PathLike[str] | None = None,
        exit_timeout: float = 30.0,
        kept_bytes: int = 1 << 16,
    ) -> None:
        check_process_groups("agent programs")
        _import_host()
        self.program = AgentProgram.find(command)
        if isinstance(pass_env, str) or not exit_timeout >= 0 or kept_bytes < 0:
            raise InvalidRequestError(
                "CommandPolicy takes pass_env= as a list of names, and an exit_timeout "
                "and kept_bytes of 0 or more"
            )
        self._env = {**self.program.env, **(env or {})}
        self._pass_env = (*self.program.pass_env, *pass_env)
        self._prompt = prompt
        self._directory = directory
        self._exit_timeout = exit_timeout
        self._kept_bytes = kept_bytes

    @property
    def policy_name(self) -> str:
        """The names of program and model, with a digest of all that it is told.

        An evaluation's output file holds it, so that no run is continued with another
        command or prompt.
        """
        told = [*self.program.full_command, self._prompt, *self._pass_env]
        told += map(str, (*sorted(self._env.items()), *self.program.files.items()))
        digest = hashlib.sha256("\0".join(told).encode("utf-8", "replace")).hexdigest()
        named = [one for one in (self.program.model, f"#{digest[:8]}") if one]
        return f"{self.program.name}({', '.join(named)})"

    def __repr__(self) -> str:
        return f"CommandPolicy({self.policy_name!r})"

    async def __call__(self, episode: Episode) -> Turn | None:
        """Return the agent's next call; None if it ended."""
        agent = episode.state.get(_IN_STATE)
        if agent is None:
            agent = episode.state[_IN_STATE] = await self._start(episode)
        try:
            action = await agent.next_action()
        except BaseException:
            agent.process.end()
            raise
        if action is None and (code := agent.process.exit_code):
            raise ORSError(
                f"the agent {self.program.name} ended with exit code {code} before the "
                f"episode did{agent.describe_last_words()}"
            )
        return None if action is None else Turn(action)

    async def end_episode(self, episode: Episode) -> None:
        """Answer the agent's last call, and have its process ended."""
        agent: _RunningAgent | None = episode.state.pop(_IN_STATE, None)
        if agent is None:
            return
        agent.calls.close()
        try:
            if episode.stop_reason in ("", "deadline", "error"):
                agent.process.end()
            await agent.process.wait(self._exit_timeout)
        finally:
            agent.process.end()
            await agent.process.wait(_GUARD_SECONDS)
            episode.extra = agent.report()
            await agent.resources.aclose()

    async def _start(self, episode: Episode) -> _RunningAgent:
        async with contextlib.AsyncExitStack() as stack:
            calls = _Calls(episode)
            host = await stack.enter_async_context(_import_host()())
            served = await stack.enter_async_context(
                host.serve(calls, instructions=False)
            )
            files = _Files(self._directory, episode)
            stack.push_async_callback(asyncio.to_thread, files.remove)
            values = await asyncio.to_thread(
                self._write_files, files, episode, served.url
            )
            command = [fill(one, values) for one in self.program.full_command]
            env = self._environment(values)
            reads_prompt = not any(
                "{prompt}" in one for one in self.program.full_command
            )
            usage = UsageReader(self.program.usage)
            redact = Redactor([env[name] for name in env if is_secret_name(name)])
            process = await AgentProcess.start(
                [_find_program(command[0], env, self.program.install), *command[1:]],
                directory=files.directory,
                env=env,
                given=files.prompt if reads_prompt else None,
                kept_bytes=self._kept_bytes,
                redact=redact,
                on_line=usage.read,
            )
            return _RunningAgent(
                calls=calls,
                process=process,
                usage=usage,
                command=shlex.join(self.program.full_command),
                redact=redact,
                resources=stack.pop_all(),
            )

    def _write_files(self, files: _Files, episode: Episode, url: str) -> dict[str, str]:
        """Write the files of the agent; return what placeholders stand for."""
        values = {
            "mcp_url": url,
            "mcp_config": str(files.config),
            "directory": str(files.directory),
        }
        server = {SERVER_NAME: {"type": "http", "url": url}}
        files.config.write_text(json.dumps({"mcpServers": server}))
        prompt = replace_surrogates(render_text(episode.prompt))
        pictures, problems = files.write_pictures(episode)
        if pictures:
            problems.insert(0, f"The pictures are in the files {', '.join(pictures)}.")
        prompt = "\n\n".join([prompt, *problems])
        values["prompt"] = fill(self._prompt, {**values, "prompt": prompt})
        files.prompt.write_text(values["prompt"], encoding="utf-8")
        for name, text in self.program.files.items():
            path = files.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fill(text, values), encoding="utf-8")
        return values

    def _environment(self, values: Mapping[str, str]) -> dict[str, str]:
        patterns = (*_PASSED, *self._pass_env)
        env = {
            name: value
            for name, value in os.environ.items()
            if name in patterns
            or (
                not name.startswith(_NEVER_BY_PATTERN)
                and any(fnmatch.fnmatchcase(name, one) for one in patterns)
            )
        }
        if any(name.lower().endswith("_proxy") for name in env):
            # The address of the episode is on this machine.
            for name in ("NO_PROXY", "no_proxy"):
                env[name] = ",".join(filter(None, (env.get(name), _LOOPBACK)))
        env |= {
            "ORS_MCP_URL": values["mcp_url"],
            "ORS_MCP_CONFIG": values["mcp_config"],
            "PWD": values["directory"],
        }
        return env | {name: fill(text, values) for name, text in self._env.items()}


class _Calls:
    """The calls of an agent: each becomes a turn, and its steps answer the agent."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.ended = False
        self._waiting: deque[_Call] = deque()
        self._under_way: _Call | None = None
        self._arrived = asyncio.Event()

    async def step(self, answer: Any) -> Sequence[Step]:
        """Hand in a call, and wait for what comes of it: nothing after the end."""
        if self.ended:
            return []
        call = _Call(answer, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._arrived.set()
        try:
            return await call.steps
        finally:
            # Given up: unless its turn has begun, it is not played.
            if call in self._waiting:
                self._waiting.remove(call)

    async def next_action(self) -> Any:
        """Answer the call of the turn that was played, and wait for the next."""
        self._answer()
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        self._under_way = self._waiting.popleft()
        return self._under_way.action

    def close(self) -> None:
        """Answer all calls; none is played any more."""
        self.ended = True
        self._answer()
        while self._waiting:
            self._waiting.popleft().answer([])

    def _answer(self) -> None:
        call, self._under_way = self._under_way, None
        if call is not None:
            turn = len(self.episode.turns) - 1
            call.answer([step for step in self.episode.steps if step.turn == turn])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Call:
    action: Any
    steps: asyncio.Future[Sequence[Step]]

    def answer(self, steps: Sequence[Step]) -> None:
        if not self.steps.done():
            self.steps.set_result(steps)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _RunningAgent:
    """An agent program that plays an episode."""

    calls: _Calls
    process: AgentProcess
    usage: UsageReader
    command: str
    redact: Redactor
    resources: contextlib.AsyncExitStack

    async def next_action(self) -> Any:
        """Return the action of the next call; None if the process ends before it."""
        calling = asyncio.create_task(self.calls.next_action())
        ending = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait([calling, ending], return_when=asyncio.FIRST_COMPLETED)
            return calling.result() if calling.done() else None
        finally:
            calling.cancel()
            ending.cancel()

    def describe_last_words(self) -> str:
        said = str(self.process.stderr).strip() or str(self.process.stdout).strip()
        return f"; its last words: {said[-_LAST_WORDS:]}" if said else ""

    def report(self) -> JSONObject:
        process = self.process
        return {
            "command": self.redact(self.command),
            "exit_code": process.exit_code,
            "ended": process.was_ended,
            "usage": self.usage.usage,
            "stdout": str(process.stdout),
            "stderr": str(process.stderr),
        }


class _Files:
    """The files of one agent: its working directory, and beside it what it is told."""

    def __init__(
        self, kept_in: str | os.PathLike[str] | None, episode: Episode
    ) -> None:
        self._is_temporary = kept_in is None
        name = re.sub(r"[^\w.-]", "_", f"{episode.environment}-{episode.split}")
        name += f"-{episode.task_index}-{episode.number}-"
        if kept_in is not None:
            pathlib.Path(kept_in).mkdir(parents=True, exist_ok=True)
        self._root = pathlib.Path(tempfile.mkdtemp(prefix=name, dir=kept_in)).resolve()
        self.directory = self._root / "work"
        self.directory.mkdir()
        self.config = self._root / "mcp.json"
        self.prompt = self._root / "prompt.txt"

    def write_pictures(self, episode: Episode) -> tuple[list[str], list[str]]:
        """Write the pictures of the prompt; return their names, and what went wrong."""
        names: list[str] = []
        problems: list[str] = []
        pictures = [block for block in episode.prompt if block.get("type") == "image"]
        for number, block in enumerate(pictures, 1):
            try:
                data = decode_base64(block.get("data"))
            except ValueError as error:
                problems.append(f"There is no file of picture {number}: {error}.")
                continue
            kind = re.sub(r"\W.*", "", read_media_type(block).partition("/")[2])
            names.append(f"picture-{number}.{kind or 'bin'}")
            (self.directory / names[-1]).write_bytes(data)
        return names, problems

    def remove(self) -> None:
        if self._is_temporary:
            shutil.rmtree(self._root, ignore_errors=True)


def _find_program(program: str, env: Mapping[str, str], install: str) -> str:
    found = shutil.which(program, path=env.get("PATH", os.defpath))
    if found is None:
        hint = f"; install it: {install}" if install else ""
        raise MissingExtraError(
            f"there is no program {program!r} that can be run (PATH){hint}"
        )
    # Its working directory is another than ours.
    return os.path.abspath(found)  # noqa: PTH100 - a link is run under its own name


def _import_host() -> Any:
    from ors_gym.mcp import EpisodeHost  # noqa: PLC0415 - needs an extra

    return EpisodeHost
