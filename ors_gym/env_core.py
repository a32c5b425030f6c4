"""The rules of an env, apart from how its exchanges are done.

`ORSEnv`, `AsyncORSEnv` and `ORSVectorEnv` all stand on this: which task is played,
what an action means, and what a reply becomes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import gymnasium
import numpy as np

from ors_gym.actions import InvalidAction, parse_action
from ors_gym.client.link import Link
from ors_gym.client.session_core import SessionCore
from ors_gym.config import UNPICKLED, EnvConfig
from ors_gym.errors import (
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    SessionClosedError,
    SessionLostError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.observations import decode_blocks, render_text, truncate
from ors_gym.protocol import operations
from ors_gym.protocol.exchange import Operation
from ors_gym.spaces import FreeText, ToolCallSpace, ToolCallText
from ors_gym.spaces.images import ImageTuple
from ors_gym.tasks import Task, TaskSchedule, choose_split
from ors_gym.transcript import Transcript
from ors_gym.types import Block, Split, ToolCall, ToolOutput, ToolSpec

__all__ = ["EnvCore", "Metadata", "Opened", "ResetResult", "StepResult"]

ResetResult: TypeAlias = tuple[Any, dict[str, Any]]
StepResult: TypeAlias = tuple[Any, float, bool, bool, dict[str, Any]]

S = TypeVar("S", bound=SessionCore)

_OPENINGS: Final = 3
"""How often a session is opened when the server loses it before its first call."""
_RESET_OPTIONS: Final = ("task_index", "task", "split")


class Metadata(Mapping[str, Any]):
    """What a tool reported beside its blocks: a read-only mapping, and no dict.

    Gymnasium's vector envs take dicts in ``info`` apart and fail when their values
    change type (GYMNASIUM.md, "Vector").

    Args:
        values: The reported fields.

    Example:
        >>> Metadata({"tokens": 3})["tokens"]
        3
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = values or {}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Metadata({dict(self._values)!r})"


class Opened(NamedTuple, Generic[S]):
    """An episode whose session is open and set up."""

    task: Task
    session: S
    prompt: list[Block]
    tools: list[ToolSpec]


@dataclasses.dataclass(slots=True)
class _Known:
    """What the server said of its splits."""

    splits: list[Split] | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


class _Observed(NamedTuple):
    """Blocks as an observation."""

    value: Any
    text: str
    truncated: bool
    problems: tuple[str, ...]
    """Why images could not be decoded."""


class EnvCore(Generic[S]):
    """Spaces, tasks and the state of the current episode.

    Args:
        config: The env's arguments.
        link: How the server is reached.
        make_session: Makes a session that is not open yet for the fields of /create
            that name a task.
    """

    def __init__(
        self,
        config: EnvConfig,
        link: Link,
        make_session: Callable[[str, Mapping[str, Any]], S],
    ) -> None:
        self.config = config
        self.environment = config.env_name
        self.tools: list[ToolSpec] = []
        self.task: Task | None = None
        self.session: S | None = None
        self._known = _Known()
        self.schedule = TaskSchedule(
            config.tasks, config.task_order, config.task_offset, config.task_stride
        )
        self.transcript = Transcript() if config.render_mode else None
        self._link = link
        self._make_session = make_session
        self._steps = 0
        self._total: float | None = 0.0
        self._why_not: str | None = "it was not reset yet"
        """Why no step can be taken; None during an episode."""
        self._unopened: ORSError | None = None
        """Why the episode has no session; its first step tells, and ends it."""
        self._closed = False
        self._owner = os.getpid()
        self._text = FreeText()
        self.action_space: gymnasium.Space[Any]
        self.observation_space: gymnasium.Space[Any]

    def learn(self) -> Operation[None]:
        """Return the operation that asks for the tools and makes the spaces."""
        wire = self._link.wire
        name = self.config.env_name
        self.environment = yield from operations.resolve_environment(wire, name)
        self.tools, _ = yield from operations.list_tools(wire, self.environment)
        calls = ToolCallSpace(self.tools)
        in_text = self.config.action_mode == "text"
        self._take_actions_of(ToolCallText(calls) if in_text else calls)
        if self.config.observation_mode == "text":
            self.observation_space = self._text
        else:
            self.observation_space = gymnasium.spaces.Dict(
                {"images": ImageTuple(), "text": self._text}
            )

    def _take_actions_of(self, space: ToolCallSpace | ToolCallText) -> None:
        self.action_space = space
        self._calls = space.calls if isinstance(space, ToolCallText) else space

    def clone(
        self, offset: int, stride: int, action_space: ToolCallSpace | ToolCallText
    ) -> EnvCore[S]:
        """Return the core of another env of the same kind, which has learned all this.

        Args:
            offset: Which of the envs that share a set of tasks it is.
            stride: How many envs share it.
            action_space: Its own action space, which follows its sessions' tools.

        Returns:
            A core that plays its own episodes. What either learns of the splits, both
            know.
        """
        config = dataclasses.replace(
            self.config, task_offset=offset, task_stride=stride
        )
        core = EnvCore(config, self._link, self._make_session)
        core.environment = self.environment
        core.tools = self.tools
        core.observation_space = self.observation_space
        core._text = self._text
        core._known = self._known
        core._take_actions_of(action_space)
        return core

    def list_splits(self) -> Operation[list[Split]]:
        """Return the operation that lists the splits, which asks only once."""
        if self._known.splits is None:
            self._known.splits = yield from operations.list_splits(
                self._link.wire, self.environment
            )
        return self._known.splits

    def count_tasks(self, split: str | None = None) -> Operation[int]:
        """Return the operation that counts the tasks that are played.

        Args:
            split: The split; the env's own if None.
        """
        if split is None:
            if self.schedule.size is not None:
                return self.schedule.size
            split = yield from self._own_split()
        counts = self._known.counts
        if split not in counts:
            counts[split] = yield from operations.num_tasks(
                self._link.wire, self.environment, split
            )
        return counts[split]

    def _own_split(self) -> Operation[str]:
        splits = yield from self.list_splits()
        return choose_split(splits, self.config.split)

    def plan(
        self, random: np.random.Generator, options: Mapping[str, Any] | None
    ) -> Operation[Task]:
        """Return the operation that chooses the task of the next episode.

        It asks the server for nothing once the splits and their sizes are known.

        Args:
            random: The env's generator.
            options: The options of a reset.

        Raises:
            UnknownTaskError: If there is no such split or task.
            InvalidRequestError: If an option is not known.
        """
        options = options or {}
        unknown = [name for name in options if name not in _RESET_OPTIONS]
        if unknown:
            raise InvalidRequestError(
                f"reset does not know the option {unknown[0]!r}; it takes "
                f"{', '.join(_RESET_OPTIONS)}"
            )
        if "split" in options:
            split = choose_split((yield from self.list_splits()), options["split"])
        else:
            split = yield from self._own_split()
        if "task" in options:
            if not isinstance(options["task"], dict):
                raise InvalidRequestError("the option 'task' is a task spec, a dict")
            return Task(split, -1, options["task"])
        if "task_index" in options:
            known = yield from self.count_tasks(split)
            return self.schedule.task_at(split, options["task_index"], known)
        count: int | None = None
        if self.schedule.size is None:
            count = yield from self.count_tasks(split)
        return self.schedule.next_task(split, count, random)

    def open(self, task: Task) -> Operation[Opened[S]]:
        """Return the operation that opens a session for a task.

        Args:
            task: The task.
        """
        if task.spec is not None:
            named: dict[str, Any] = {"task_spec": task.spec}
        else:
            named = {"split": task.split, "index": task.index}
        opening = 1
        while True:
            session = self._make_session(self.environment, named)
            try:
                prompt, tools = yield from session.start_operation()
            except SessionLostError:
                # Nothing was called yet: the server was restarted in between.
                if opening == _OPENINGS:
                    raise
                opening += 1
            else:
                return Opened(task, session, prompt, tools)

    def prepare(self, options: Mapping[str, Any] | None) -> Operation[None]:
        """Return the operation that asks for what `plan` has to know.

        Envs that share what they know ask once then, instead of all at the same time.

        Args:
            options: The options of a reset.
        """
        options = options or {}
        splits = yield from self.list_splits()
        if self.schedule.size is None or "task_index" in options:
            split = options.get("split", self.config.split)
            yield from self.count_tasks(choose_split(splits, split))

    def leave(self) -> None:
        """Give up the current episode; the background deletes its session."""
        if self.task is not None and self._steps:
            self.schedule.history.append((self.task.index, self._total))
        if self.session is not None:
            self.session.discard()
        self.session = self.task = self._unopened = None
        self._why_not = "it was not reset after its last episode"

    def begin(self, opened: Opened[S]) -> ResetResult:
        """Start an episode on a session that is open.

        Args:
            opened: The session.

        Returns:
            Observation and info.
        """
        self.task, self.session, prompt, self.tools = opened
        self._calls.update(self.tools)
        self._steps = 0
        self._total = 0.0
        self._why_not = None
        self._owner = os.getpid()
        seen = self._observe(prompt)
        if self.transcript is not None:
            self.transcript.start(seen.text)
        return seen.value, self._info("", prompt, seen)

    def begin_without(self, task: Task | None, error: ORSError) -> ResetResult:
        """Start an episode whose session could not be opened: its first step ends it.

        Args:
            task: The task, if it is known.
            error: Why there is no session.

        Returns:
            The error as the observation, and the info.
        """
        self.task = task
        self._unopened = error
        self._steps = 0
        self._total = None
        seen = self._observe([{"type": "text", "text": str(error)}])
        if self.transcript is not None:
            self.transcript.start(seen.text)
        info = self._info("", [], seen)
        info["error"] = seen.text
        info["error_kind"] = error.kind
        return seen.value, info

    def check_steppable(self) -> None:
        """Raise unless a step can be taken.

        Raises:
            EpisodeOverError: If there is no episode to step.
        """
        if self._unopened is None:
            self._playing()

    def _playing(self) -> S:
        """Return the session of the episode that is under way."""
        session = self.session
        if self._why_not is not None or session is None:
            cure = "make a new env" if self._closed else "call reset()"
            raise EpisodeOverError(f"cannot step the env: {self._why_not}; {cure}")
        if self._owner != os.getpid():
            raise EpisodeOverError(
                "cannot step the env: its session belongs to the process that opened "
                "it, from which this one was forked; call reset()"
            )
        return session

    def take(self, action: object) -> tuple[S, ToolCall] | StepResult:
        """Read an action.

        Args:
            action: Anything.

        Returns:
            The session and the call to make on it; or, for an action that is no call,
            the step's result.

        Raises:
            EpisodeOverError: If there is no episode to step.
        """
        error, self._unopened = self._unopened, None
        if error is not None:
            self._why_not = "its session could not be opened"
            return self._failed_step("", {}, str(error), error.kind, truncated=True)
        session = self._playing()
        call = parse_action(
            action,
            tools=self.tools,
            plain_text=self.config.plain_text,
            terminal_tool=session.terminal_tool,
        )
        if not isinstance(call, InvalidAction):
            return session, call
        return self._failed_step("", {}, call.message, "invalid_action")

    def succeeded(self, call: ToolCall, output: ToolOutput) -> StepResult:
        """Make a step's result of a tool's output.

        Args:
            call: The call that was made.
            output: What the tool gave back.

        Returns:
            Gymnasium's 5-tuple.
        """
        blocks = output["blocks"]
        reward = output["reward"]
        terminated = output["finished"]
        seen = self._observe(blocks)
        info = self._info(call["tool"], blocks, seen)
        if output["metadata"]:
            info["metadata"] = Metadata(output["metadata"])
        if reward is None:
            reward = 0.0
            info["reward_is_null"] = True
        return self._finish_step(call, seen, reward, terminated, info)

    def failed(self, call: ToolCall, error: ORSError) -> StepResult:
        """Make a step's result of an error, or raise it.

        Args:
            call: The call that was made.
            error: What came of it.

        Returns:
            Gymnasium's 5-tuple, for what is the model's mistake, a tool's failure, or
            an outage that is to end the episode.

        Raises:
            ORSError: The error itself, where it is to be raised.
        """
        config = self.config
        if isinstance(error, ToolRejectedError):
            return self._failed_step(
                call["tool"], call["input"], str(error), error.kind
            )
        if isinstance(error, ToolFailedError):
            if config.on_tool_error == "raise":
                raise error
            truncated = config.on_tool_error == "truncate"
        else:
            self._why_not = f"its episode ended by an error ({error.kind})"
            self._total = None
            if not error.outage or config.on_error == "raise":
                raise error
            truncated = True
        return self._failed_step(
            call["tool"], call["input"], str(error), error.kind, truncated=truncated
        )

    def interrupted(self) -> None:
        """Note that a call was interrupted: its session takes no further one."""
        self._why_not = "its last step was interrupted"
        self._total = None

    def closed(self) -> None:
        """Note that the env was closed."""
        self.leave()
        self._why_not = "it was closed"
        self._closed = True

    def check_usable(self) -> None:
        """Raise unless an episode can be started.

        Raises:
            SessionClosedError: If the env was closed.
            InvalidRequestError: If it lost its secrets in a pickle.
        """
        if self._closed:
            raise SessionClosedError("the env was closed; make a new one")
        if self.config.secrets == UNPICKLED:
            raise InvalidRequestError(
                "this env was made with secrets, which do not travel in a pickle; make "
                "it anew with secrets= where it is needed"
            )

    def _failed_step(
        self,
        tool: str,
        tool_input: dict[str, Any],
        text: str,
        kind: str,
        *,
        truncated: bool = False,
    ) -> StepResult:
        seen = self._observe([{"type": "text", "text": text}])
        info = self._info(tool, [], seen)
        info["error"] = seen.text
        info["error_kind"] = kind
        reward = self.config.invalid_action_reward if kind == "invalid_action" else 0.0
        finished = self.session is not None and self.session.finished
        call = ToolCall(tool=tool, input=tool_input)
        return self._finish_step(
            call, seen, reward, finished, info, truncated=truncated
        )

    def _finish_step(
        self,
        call: ToolCall,
        seen: _Observed,
        reward: float,
        terminated: bool,
        info: dict[str, Any],
        *,
        truncated: bool = False,
    ) -> StepResult:
        self._steps += 1
        if self._total is not None:
            self._total += reward
        limit = self.config.max_episode_steps
        if limit is not None and self._steps >= limit:
            # Beside `terminated` too, as Gymnasium's TimeLimit does.
            truncated = True
        if (terminated or truncated) and self._why_not is None:
            self._why_not = "its episode is over"
        if self.transcript is not None:
            note = info["error_kind"]
            if terminated or truncated:
                note = note or ("finished" if terminated else "truncated")
            self.transcript.step(call["tool"], call["input"], seen.text, reward, note)
        return seen.value, reward, terminated, truncated, info

    def empty_observation(self) -> Any:
        """Return what an env shows that was not reset yet."""
        return self._observe([]).value

    def _observe(self, blocks: Sequence[Block]) -> _Observed:
        limit = self._text.max_length
        if self.config.observation_mode == "text":
            text, truncated = truncate(render_text(blocks), limit)
            return _Observed(text, text, truncated, ())
        decoded = decode_blocks(blocks)
        text, truncated = truncate(decoded.text, limit)
        value = {"images": decoded.images, "text": text}
        return _Observed(value, text, truncated, decoded.problems)

    def _info(
        self, tool: str, blocks: Sequence[Block], seen: _Observed
    ) -> dict[str, Any]:
        task = self.task
        broken = seen.problems
        return {
            "task_index": task.index if task is not None else -1,
            "split": task.split if task is not None else "",
            "tool": tool,
            "error": "; ".join(broken),
            "error_kind": "broken_image" if broken else "",
            "reward_is_null": False,
            "observation_truncated": seen.truncated,
            "blocks": blocks,
            "metadata": _NO_METADATA,
        }


_NO_METADATA: Final = Metadata()
