"""The rules of an episode: what an action means, and what a reply becomes.

They do no I/O, choose no task, and know nothing of how an episode is shown: a recorder
is handed in. `TaskEnv` and `AsyncTaskEnv` drive them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import gymnasium

from ors_gym._shown_text import warn
from ors_gym._system import register_for_fork
from ors_gym.client._client_core import Catalog
from ors_gym.client._session_core import SessionCore
from ors_gym.env._open_for_task import Opened
from ors_gym.env._settings import UNPICKLED, TaskEnvSettings
from ors_gym.env._task_order import Task
from ors_gym.errors import (
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    SessionClosedError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.formats._actions import (
    InvalidAction,
    check_is_action,
    list_tools,
    parse_action,
)
from ors_gym.formats._blocks import decode_blocks, render_text, truncate
from ors_gym.spaces import FreeText, ToolCallSpace, ToolCallText
from ors_gym.spaces._images import ImageTuple
from ors_gym.spaces._narrow_tools import narrow_tools
from ors_gym.spaces._text import DEFAULT_MAX_LENGTH
from ors_gym.types import Block, ToolCall, ToolList, ToolOutput, ToolSpec

ResetResult: TypeAlias = tuple[Any, dict[str, Any]]
"""What Gymnasium's ``reset`` returns: observation and info."""
StepResult: TypeAlias = tuple[Any, float, bool, bool, dict[str, Any]]
"""What its ``step`` returns: observation, reward, terminated, truncated and info."""

S = TypeVar("S", bound=SessionCore)

_MANY_REFUSALS: Final = 25
"""An env with fewer refused calls does not warn: they may be its policy's mistakes."""


def name_refusals(environment: str) -> str:
    """Return the name under which the warning of refused calls is given once."""
    return f"refusals of {environment}"


class PendingCall(NamedTuple, Generic[S]):
    """An action that was read as a call: what is left is to make it."""

    session: S
    call: ToolCall


class Recorder(Protocol):
    """Keeps an episode for people to look at."""

    def record_prompt(
        self, text: str, blocks: Sequence[Block], environment: str, task: str
    ) -> None:
        """Begin a new episode."""

    def record_step(self, call: ToolCall, text: str, result: StepResult) -> None:
        """Add a step."""


class StepRules(Generic[S]):
    """Spaces, and the state of the current episode."""

    def __init__(self, settings: TaskEnvSettings, recorder: Recorder | None) -> None:
        self.environment = settings.env_name
        self.tools: list[ToolSpec] = ToolList()
        self.task: Task | None = None
        self.session: S | None = None
        self.catalog: Catalog | None = None
        """The client's catalog, which remembers the warnings that were given."""
        self._settings = settings
        self._unlisted_tools = set(settings.tool_schemas or ())
        """Tools of ``tool_schemas`` that nobody has listed yet."""
        self._recorder = recorder
        self._steps = 0
        """Steps of this episode."""
        self._steps_before = 0
        """Steps of all earlier episodes."""
        self._refused = 0
        """Refused calls of all episodes."""
        self._first_refusal = ""
        self._total: float | None = 0.0
        self._why_no_step: str | None = "it was not reset yet"
        """Why no step can be taken; None during an episode."""
        self._unopened: ORSError | None = None
        """Why the session could not be opened, until the first step shows it."""
        self._closed = False
        register_for_fork(self)

    # Spaces are made when somebody asks for them: to make one takes longer than a step,
    # and a rollout needs none.

    @functools.cached_property
    def _calls(self) -> ToolCallSpace:
        return ToolCallSpace(self.tools)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:
        as_text = self._settings.action_mode == "text"
        return ToolCallText(self._calls) if as_text else self._calls

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:
        text = FreeText()
        if self._settings.observation_mode == "text":
            return text
        return gymnasium.spaces.Dict({"images": ImageTuple(), "text": text})

    def set_tools(self, environment: str, tools: list[ToolSpec]) -> None:
        """Take a session's tools, as the settings narrow them, and their space."""
        settings = self._settings
        self._unlisted_tools -= {tool["name"] for tool in tools}
        tools = narrow_tools(tools, settings.tool_schemas)
        if settings.terminal_tool_as != "both":
            terminal: Any = {"terminal": settings.terminal_tool_as}
            tools = [{**one, **terminal} if "terminal" in one else one for one in tools]
        self.environment = environment
        self.tools = ToolList(tools)
        if "_calls" in vars(self):
            self._calls.update(tools)

    @property
    def outcome(self) -> tuple[int, float | None] | None:
        """The task's index and the total reward, once a step was taken.

        The reward is None if nobody knows it: after an outage, or an interrupted step.
        """
        if self.task is None or not self._steps:
            return None
        return self.task.index, self._total

    def begin(self, opened: Opened[S]) -> ResetResult:
        """Start an episode on a session that is open."""
        self._start(opened.task)
        self.session = opened.session
        self.set_tools(opened.environment, opened.tools)
        self._warn_of_unlisted_tools()
        self._why_no_step = None
        seen = self._observe(opened.prompt)
        self._record_prompt(seen, opened.prompt)
        return seen.value, _make_info(self.task, "", opened.prompt, seen)

    def _warn_of_unlisted_tools(self) -> None:
        """Warn once of names in ``tool_schemas`` that look like mistakes."""
        if self._unlisted_tools:
            unlisted = ", ".join(sorted(self._unlisted_tools))
            listed = ", ".join(tool["name"] for tool in self.tools) or "no tool"
            warn(
                f"tool_schemas names {unlisted}, which {self.environment} does not "
                f"list; it lists {listed}",
            )
            self._unlisted_tools.clear()

    def begin_without_session(self, task: Task | None, error: ORSError) -> ResetResult:
        """Start an episode that shows an error; its first step ends it."""
        self._start(task)
        self._unopened = error
        self._total = None
        seen = self._observe([{"type": "text", "text": error.message}])
        self._record_prompt(seen, [])
        info = _make_info(self.task, "", [], seen)
        info["error"] = seen.text
        info["error_kind"] = error.kind
        return seen.value, info

    def _start(self, task: Task | None) -> None:
        self.task = task
        self._steps_before += self._steps
        self._steps = 0
        self._total = 0.0

    def leave(self) -> S | None:
        """Give up the current episode, and return the session that is to be closed."""
        session = self.session
        self.session = self.task = self._unopened = None
        self._why_no_step = "it was not reset after its last episode"
        return session

    def check_steppable(self) -> None:
        """Raise EpisodeOverError unless a step can be taken."""
        if self._unopened is None:
            self._session_in_play()

    def _session_in_play(self) -> S:
        """Return the session of the episode that is under way."""
        session = self.session
        if self._why_no_step is not None or session is None:
            cure = "make a new env" if self._closed else "call reset()"
            raise EpisodeOverError(f"cannot step the env: {self._why_no_step}; {cure}")
        return session

    def reset_after_fork(self) -> None:
        """Leave the session to the process that opened it."""
        if self._why_no_step is None:
            self._why_no_step = (
                "its session belongs to the process that opened it, from which this "
                "one was forked"
            )

    def read_action(self, action: object) -> PendingCall[S] | StepResult:
        """Read an action in any form: return the call to make, or the step's result."""
        error, self._unopened = self._unopened, None
        if error is not None:
            self._why_no_step = "its session could not be opened"
            return self._failed_step("", {}, error.message, error.kind, truncated=True)
        session = self._session_in_play()
        call = parse_action(
            action,
            tools=self.tools,
            plain_text=self._settings.plain_text,
        )
        if isinstance(call, InvalidAction):
            check_is_action(action, "step() was given")
            # An InvalidAction that the caller made himself, with an empty `said`, is
            # intended: do not warn of it.
            if call is not action or call.said:
                self._warn_of_unreadable(call)
            return self._failed_step("", {}, call.message, "invalid_action")
        return PendingCall(session, call)

    def _warn_of_unreadable(self, action: InvalidAction) -> None:
        """Warn of the first one: a loop that ends by itself may never look at infos."""
        if self.catalog is None or not self.catalog.is_first("an unreadable action"):
            return
        warn(
            f"no tool call could be read in an action for {self.environment}: "
            f"{action.said!r}. {action.message} Later ones are reported in "
            'info["error"] alone.',
        )

    def succeeded(self, call: ToolCall, output: ToolOutput) -> StepResult:
        """Return the result of a step whose tool gave an output."""
        blocks = output["blocks"]
        reward = output["reward"]
        terminated = output["finished"]
        seen = self._observe(blocks)
        info = _make_info(self.task, call["tool"], blocks, seen)
        if output["metadata"]:
            info["metadata"] = Metadata(output["metadata"])
        if reward is None:
            reward = 0.0
            info["reward_is_null"] = True
        return self._finish_step(call, seen, reward, terminated, info)

    def failed(self, call: ToolCall, error: ORSError) -> StepResult:
        """Return the result of a step whose call failed, or raise the error.

        A refused call always has a result. A tool that raised has one unless
        `on_tool_error` is ``raise``; an outage has one unless `on_error` is ``raise``.
        Every other error is raised.
        """
        settings = self._settings
        truncated = False
        if isinstance(error, ToolFailedError):
            choice = settings.on_error_of(call["tool"])
            if choice == "raise":
                raise error
            truncated = choice == "truncate"
        elif not isinstance(error, ToolRejectedError):
            self._why_no_step = f"its episode ended by an error ({error.kind})"
            self._total = None
            if not error.outage or settings.on_error == "raise":
                raise error
            truncated = True
        text = error.message
        metadata: dict[str, Any] = {}
        if isinstance(error, ToolRejectedError):
            if error.original:
                metadata = {"original_error": error.original}
            names = {tool["name"] for tool in self.tools}
            if call["tool"] not in names and not all(name in text for name in names):
                text = f"{text.removesuffix('.')}.{list_tools(self.tools)}"
            self._note_refusal(f"{call['tool']}: {text}")
        return self._failed_step(
            call["tool"],
            call["input"],
            text,
            error.kind,
            truncated=truncated,
            metadata=metadata,
        )

    def _note_refusal(self, words: str) -> None:
        """Warn once where most calls are refused: training on that learns nothing."""
        self._refused += 1
        self._first_refusal = self._first_refusal or " ".join(words.split())
        steps = self._steps_before + self._steps + 1
        if self._refused < _MANY_REFUSALS or 2 * self._refused <= steps:
            return
        event = name_refusals(self.environment)
        if self.catalog is not None and self.catalog.is_first(event):
            warn(
                f"{self._refused} of {steps} calls of an env of {self.environment} "
                f"were refused. The first: {self._first_refusal:.300}. If its "
                "schemas leave out constraints, pass tool_schemas=, which "
                "ors_gym.testing.suggest_schemas proposes.",
            )

    def interrupted(self) -> None:
        """Note that a call was interrupted: its session takes no further one."""
        self._why_no_step = "its last step was interrupted"
        self._total = None

    def close(self) -> S | None:
        """End for good, and return the session that is to be closed."""
        session = self.leave()
        self._why_no_step = "it was closed"
        self._closed = True
        return session

    def check_usable(self) -> None:
        """Raise unless an episode can be started.

        Raises:
            SessionClosedError: If the env was closed.
            InvalidRequestError: If the env lost its secrets in a pickle.
        """
        if self._closed:
            raise SessionClosedError("the env was closed; make a new one")
        if self._settings.secrets == UNPICKLED:
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
        metadata: Mapping[str, Any] | None = None,
    ) -> StepResult:
        seen = self._observe([{"type": "text", "text": text}])
        info = _make_info(self.task, tool, [], seen)
        info["error"] = seen.text
        info["error_kind"] = kind
        if metadata:
            info["metadata"] = Metadata(metadata)
        invalid = kind == "invalid_action"
        reward = self._settings.invalid_action_reward if invalid else 0.0
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
        limit = self._settings.max_episode_steps
        if limit is not None and self._steps >= limit:
            # Also where the step terminated the episode, as Gymnasium's TimeLimit does.
            truncated = True
        if (terminated or truncated) and self._why_no_step is None:
            self._why_no_step = "its episode is over"
        result = (seen.value, reward, terminated, truncated, info)
        if self._recorder is not None:
            self._recorder.record_step(call, seen.text, result)
        return result

    def _record_prompt(self, seen: _Observed, blocks: Sequence[Block]) -> None:
        if self._recorder is not None:
            self._recorder.record_prompt(
                seen.text,
                blocks,
                self.environment,
                self.task.title if self.task is not None else "",
            )

    def empty_observation(self) -> Any:
        """Return what an env shows that was not reset yet."""
        return self._observe([]).value

    def _observe(self, blocks: Sequence[Block]) -> _Observed:
        if self._settings.observation_mode == "text":
            text, truncated = truncate(render_text(blocks), DEFAULT_MAX_LENGTH)
            return _Observed(text, text, truncated)
        decoded = decode_blocks(blocks)
        text, truncated = truncate(decoded.text, DEFAULT_MAX_LENGTH)
        value = {"images": decoded.images, "text": text}
        return _Observed(value, text, truncated, "; ".join(decoded.problems))


class _Observed(NamedTuple):
    """Blocks as an observation."""

    value: Any
    text: str
    truncated: bool
    problems: str = ""
    """Why images could not be decoded."""


class Metadata(Mapping[str, Any]):
    """What a tool reported beside its blocks: a read-only mapping that is not a dict.

    Gymnasium's vector envs take dicts in ``info`` apart and fail when their values
    change type (`gymnasium.vector.VectorEnv._add_info`).
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


_NO_METADATA: Final = Metadata()


def _make_info(
    task: Task | None, tool: str, blocks: Sequence[Block], seen: _Observed
) -> dict[str, Any]:
    """Make an info: the same keys and types at each reset and step."""
    return {
        "task_index": task.index if task is not None else -1,
        "split": task.split if task is not None else "",
        "tool": tool,
        "error": seen.problems,
        "error_kind": "broken_image" if seen.problems else "",
        "reward_is_null": False,
        "observation_truncated": seen.truncated,
        "blocks": blocks,
        "metadata": _NO_METADATA,
    }
