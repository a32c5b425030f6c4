"""The rules of an env, apart from how its exchanges are done.

`ORSEnv`, `AsyncORSEnv` and `ORSVectorEnv` all stand on this: which task is played,
what an action means, and what a reply becomes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ors_gym.client._connection import Link
from ors_gym.client._session import SessionCore
from ors_gym.env._observation import Metadata, Observed, make_info, name_task, observe
from ors_gym.env._opening import Opened, TaskPlanner
from ors_gym.env._settings import UNPICKLED, EnvConfig
from ors_gym.env._task_order import Task
from ors_gym.errors import (
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    SessionClosedError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.formats._actions import InvalidAction, parse_action
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation
from ors_gym.spaces import FreeText, ToolCallSpace, ToolCallText
from ors_gym.spaces._images import ImageTuple
from ors_gym.types import Block, ToolCall, ToolOutput, ToolSpec

if TYPE_CHECKING:
    from ors_gym.display._renderer import Renderer
    from ors_gym.display._transcript import Transcript

__all__ = ["EnvCore", "ResetResult", "StepResult"]

ResetResult: TypeAlias = tuple[Any, dict[str, Any]]
StepResult: TypeAlias = tuple[Any, float, bool, bool, dict[str, Any]]

S = TypeVar("S", bound=SessionCore)


class EnvCore(TaskPlanner[S]):
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
        super().__init__(config, link, make_session)
        self.tools: list[ToolSpec] = []
        self.task: Task | None = None
        self.session: S | None = None
        self._renderer = _make_renderer(config.render_mode)
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

    def learn(self, *, of_tools: bool = True) -> Operation[None]:
        """Return the operation that asks for the tools and makes the spaces.

        Args:
            of_tools: Whether the tools are asked for, unless the client knows them.
                Without them the spaces are those of the sessions to come.
        """
        wire = self._link.wire
        name = self.config.env_name
        self.environment = yield from operations.resolve_environment(wire, name)
        listing = wire.listing(self.environment)
        if listing.tools is None and of_tools:
            listing.tools, _ = yield from operations.list_tools(wire, self.environment)
        self.tools = listing.tools or []
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
            A core that plays its own episodes.
        """
        config = dataclasses.replace(
            self.config, task_offset=offset, task_stride=stride
        )
        core = EnvCore(config, self._link, self._make_session)
        core.environment = self.environment
        core.tools = self.tools
        core.observation_space = self.observation_space
        core._text = self._text
        core._take_actions_of(action_space)
        return core

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
        self._write_prompt(seen, prompt)
        return seen.value, make_info(self.task, "", prompt, seen)

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
        self._write_prompt(seen, [])
        info = make_info(self.task, "", [], seen)
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
        info = make_info(self.task, call["tool"], blocks, seen)
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
        info = make_info(self.task, tool, [], seen)
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
        seen: Observed,
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
        result = (seen.value, reward, terminated, truncated, info)
        if self._renderer is not None:
            self._renderer.record_step(call, seen.text, result)
        return result

    def _write_prompt(self, seen: Observed, blocks: Sequence[Block]) -> None:
        if self._renderer is not None:
            self._renderer.record_prompt(
                seen.text, blocks, self.environment, name_task(self.task)
            )

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode as the env's render mode says.

        Returns:
            A picture for ``rgb_array``; None for ``human``, where what is new is
            printed, and without a render mode; else the whole episode as text.
        """
        return None if self._renderer is None else self._renderer.render()

    @property
    def transcript(self) -> Transcript | None:
        """The episode so far, as a person reads it; None without a render mode."""
        return None if self._renderer is None else self._renderer.transcript

    def empty_observation(self) -> Any:
        """Return what an env shows that was not reset yet."""
        return self._observe([]).value

    def _observe(self, blocks: Sequence[Block]) -> Observed:
        return observe(blocks, self.config.observation_mode, self._text.max_length)


def _make_renderer(render_mode: str | None) -> Renderer | None:
    if render_mode is None:
        return None
    # Only an env that is shown imports how an episode is shown.
    from ors_gym.display._renderer import Renderer  # noqa: PLC0415

    return Renderer(render_mode)
