"""The driver of episodes: opens a session for a task, steps it and leaves it.

One set of rules, and two drivers of it: `TaskEnv` blocks, `AsyncTaskEnv` is awaited.
Whatever plays episodes here stands on one of them: envs, vector envs, rollouts, and the
integrations of training frameworks.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ors_gym.client import AsyncORSClient, AsyncSession, ORSClient, Session
from ors_gym.client._session_core import SessionCore
from ors_gym.env._open_for_task import Opened, Opening, find_task, open_for_task
from ors_gym.env._settings import (
    TaskEnvSettings,
    find_server,
    refuse_client_arguments,
    shows_settings,
)
from ors_gym.env._step_rules import PendingCall, ResetResult, StepResult, StepRules
from ors_gym.env._task_order import Task, TaskChoice
from ors_gym.errors import ORSError
from ors_gym.protocol._exchange import Operation
from ors_gym.types import JSONObject, TaskSpec, ToolSpec

if TYPE_CHECKING:
    from ors_gym.display._render_modes import Renderer
    from ors_gym.display._transcript import Transcript

S = TypeVar("S", bound=SessionCore)


class _BaseTaskEnv(Generic[S]):
    """What both drivers have in common: everything that waits for nothing."""

    _settings_class: ClassVar[type[TaskEnvSettings]] = TaskEnvSettings
    client: ORSClient | AsyncORSClient

    def __init__(self, env_name: str, base_url: str | None, arguments: Any) -> None:
        self._settings = self._settings_class.read(
            type(self).__name__,
            {"env_name": env_name, "base_url": base_url, **arguments},
        )
        self.render_mode = self._settings.render_mode
        self._renderer = _make_renderer(self.render_mode)
        self._rules: StepRules[S] = StepRules(self._settings, self._renderer)
        self._tried: Task | None = None
        """The task that was opened last, whether or not that succeeded."""

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:
        """The calls of the session's tools, or text that holds one."""
        return self._rules.action_space

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:
        """What prompts and replies are shown as."""
        return self._rules.observation_space

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.client.base_url

    @property
    def session(self) -> S | None:
        """The current session, or None."""
        return self._rules.session

    @property
    def session_id(self) -> str | None:
        """The server's id of the current session, or None."""
        session = self._rules.session
        return session.session_id if session is not None else None

    @property
    def conversation(self) -> list[JSONObject]:
        """The prompt of the current session as messages with ``role`` and ``blocks``.

        It is one user message, unless the environment's prompt is a conversation.
        Empty without a session. The text observation of a reset has the same content.
        """
        session = self._rules.session
        return (session.conversation if session is not None else None) or []

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools of the latest session.

        Before the first session: the tools that every session has, if `fetch_tools`
        was called; else none.
        """
        return self._rules.tools

    @property
    def terminal_tool(self) -> ToolSpec | None:
        """The tool that the server declares to end the episode, or None."""
        return next((tool for tool in self.tools if "terminal" in tool), None)

    @property
    def environment(self) -> str:
        """The environment's name, as the server spells it once it was asked."""
        return self._rules.environment

    @property
    def outcome(self) -> tuple[int, float | None] | None:
        """The task's index and the total reward, once a step was taken.

        The reward is None if nobody knows it: after an outage, or an interrupted step.
        """
        return self._rules.outcome

    @property
    def transcript(self) -> Transcript | None:
        """The episode so far, as a person reads it; None without a render mode."""
        return None if self._renderer is None else self._renderer.transcript

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode as `ORSEnv.render` does; None without a render mode."""
        return None if self._renderer is None else self._renderer.render()

    def check_usable(self) -> None:
        """Raise unless an episode can be started.

        Raises:
            SessionClosedError: If the env was closed.
            InvalidRequestError: If the env lost its secrets in a pickle.
        """
        self._rules.check_usable()

    def check_steppable(self) -> None:
        """Raise unless a step can be taken.

        Raises:
            EpisodeOverError: If there is no episode to step.
        """
        self._rules.check_steppable()

    def begin_without_session(self, error: ORSError) -> ResetResult:
        """Start an episode of the task that could not be opened.

        Args:
            error: Why it could not.

        Returns:
            The error as the observation, and the info. The first step shows the error
            again, and ends the episode.
        """
        return self._rules.begin_without_session(self._tried, error)

    def empty_observation(self) -> Any:
        """Return what stands for an observation before the first episode."""
        return self._rules.empty_observation()

    def interrupt(self) -> None:
        """Note that a step was given up: the session takes no further call."""
        self._rules.interrupted()

    def discard(self) -> None:
        """Close the env without waiting: the background deletes its session."""
        session = self._rules.close()
        if session is not None:
            session.discard()

    def _forget_episode(self) -> S | None:
        """Forget the episode, and return the session that is to be closed."""
        self._tried = None
        return self._rules.leave()

    def _finding(self, task: object, split: str | None) -> Operation[Task]:
        settings = self._settings
        split = split if split is not None else settings.split
        return find_task(self.client.catalog, settings.env_name, task, split)

    def _opening(self, task: Task) -> Operation[Opened[Any]]:
        client = self.client
        return open_for_task(client.catalog, client.session, self._settings, task)

    def _fetching_tools(self) -> Operation[None]:
        catalog = self.client.catalog
        environment = yield from catalog.resolve(self._settings.env_name)
        self._rules.set_tools(environment, (yield from catalog.tools(environment)))


def _make_renderer(render_mode: str | None) -> Renderer | None:
    if render_mode is None:
        return None
    # Only an env that is shown imports how an episode is shown.
    from ors_gym.display._render_modes import Renderer  # noqa: PLC0415

    return Renderer(render_mode)


class TaskEnv(_BaseTaskEnv[Session]):
    """Opens a session for a task, steps it and leaves it, as often as you like.

    `ORSEnv` chooses the tasks itself and is a Gymnasium env; here you say which task is
    played. Nothing is asked of the server before the first `open`.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        client: A client to use in place of an own one. The env does not close it.
        **arguments: The other arguments of `ORSEnv`, except those that choose tasks:
            ``tasks``, ``task_order``, ``task_offset``, ``task_stride``, ``prefetch``.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> from ors_gym.env import TaskEnv
        >>> with TaskEnv("guess") as env:
        ...     observation, info = env.open(7)
        ...     action = {"tool": "guess", "input": {"number": 50}}
        ...     observation, reward, terminated, truncated, info = env.step(action)
        >>> info["tool"], info["task_index"]
        ('guess', 7)
    """

    client: ORSClient

    @shows_settings(TaskEnvSettings)
    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        *,
        client: ORSClient | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(env_name, base_url, arguments)
        self._owned: ORSClient | None = None
        if client is None:
            arguments = self._settings.client_arguments()
            client = self._owned = ORSClient(find_server(base_url), **arguments)
        else:
            refuse_client_arguments(arguments)
        self.client = client
        self._rules.catalog = client.catalog

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self.close()
        return False

    def fetch_tools(self) -> None:
        """Ask for the tools of all sessions, so that the action space has them.

        Raises:
            UnknownEnvironmentError: If the server has no such environment.
            ConnectionFailedError: If the server cannot be reached.
        """
        self.client.run(self._fetching_tools())

    def open(
        self,
        task: Task | Opening[Session] | TaskChoice,
        *,
        split: str | None = None,
    ) -> ResetResult:
        """Open a session for a task. The background deletes the session before it.

        Args:
            task: The task's index in the split, a pair of split and index, the task
                itself (a dict), or what `open_ahead` returned.
            split: The split of an index; that of the constructor if None.

        Returns:
            The prompt as an observation, and the info.

        Raises:
            SetupFailedError: If the environment's set-up raised, or took too long.
            UnknownTaskError: If there is no such split or task.
            ConnectionFailedError: If the server cannot be reached.
        """
        self.check_usable()
        self.leave(wait=False)
        found = self._tried = self.find_task(task, split=split)
        opened = self._wait_for(task) if isinstance(task, Opening) else None
        if opened is None:
            opened = self.client.run(self._opening(found))
        result = self._rules.begin(opened)
        if self.render_mode == "human":
            self.render()
        return result

    def _wait_for(self, ahead: Opening[Session]) -> Opened[Session] | None:
        pending = ahead.take()
        if pending is None:
            return None
        try:
            return pending.result()
        except (ORSError, asyncio.CancelledError):
            # It is opened once more now; if that fails too, its error is raised.
            return None
        except BaseException:
            pending.cancel()
            raise

    def open_ahead(
        self, task: Task | TaskChoice, *, split: str | None = None
    ) -> Opening[Session]:
        """Begin to open a session for a task in the background.

        Args:
            task: The task's index in the split, a pair of split and index, or the task
                itself (a dict).
            split: The split of an index; that of the constructor if None.

        Returns:
            The session to come: pass it to `open`, also to that of another `TaskEnv`
            of the same environment, or ``discard()`` it.
        """
        self.check_usable()
        found = self.find_task(task, split=split)
        return Opening(found, self.client.run_in_background(self._opening(found)))

    def find_task(
        self,
        task: Task | Opening[Session] | TaskChoice,
        *,
        split: str | None = None,
    ) -> Task:
        """Find out which task is meant.

        Args:
            task: The task's index in the split, a pair of split and index, the task
                itself (a dict), or what `open_ahead` returned.
            split: The split of an index; that of the constructor if None.

        Returns:
            The task, as `open` takes it too.

        Raises:
            UnknownTaskError: If there is no such split, or this names no task.
        """
        return self.client.run(self._finding(task, split))

    def step(self, action: Any) -> StepResult:
        """Call a tool.

        Args:
            action: ``{"tool": name, "input": {...}}``, or any other form that
                `ors_gym.formats.parse_action` reads.

        Returns:
            Observation, reward, whether the server finished the episode, whether it
            was cut short, and the info. For an action that is no valid call, the
            observation says what is wrong.

        Raises:
            EpisodeOverError: If there is no episode to step.
            InvalidArgumentError: If no action has such a type: a number, None, ...
            ORSError: For an outage, unless ``on_error="truncate"``; for a tool that
                raised, with ``on_tool_error="raise"``.
        """
        rules = self._rules
        read = rules.read_action(action)
        if isinstance(read, PendingCall):
            session, call = read
            try:
                output = session.call_tool(call["tool"], call["input"])
            except ORSError as error:
                result = rules.failed(call, error)
            except BaseException:
                rules.interrupted()
                raise
            else:
                result = rules.succeeded(call, output)
        else:
            result = read
        if self.render_mode == "human":
            self.render()
        return result

    def leave(self, *, wait: bool = True) -> None:
        """Delete the session; the next `open` starts another.

        Args:
            wait: Whether to wait for the server, in bounded time; the session is
                deleted in the background otherwise.
        """
        session = self._forget_episode()
        if session is not None:
            session.close(wait=wait)

    def close(self) -> None:
        """Delete the session, in bounded time. Closing twice is fine."""
        session = self._rules.close()
        try:
            if session is not None:
                session.close()
        finally:
            if self._owned is not None:
                self._owned.close()

    @property
    def task(self) -> TaskSpec | None:
        """The current task, or None. It usually holds the answer.

        The server is asked for it, once, if only its index is known.
        """
        task = self._rules.task
        if task is None or task.spec is not None:
            return task.spec if task is not None else None
        return self.client.get_task(self.environment, task.split, task.index)


class AsyncTaskEnv(_BaseTaskEnv[AsyncSession]):
    """`TaskEnv` with awaitable methods: for many sessions on one event loop.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        client: A client to use in place of an own one. The env does not close it.
        **arguments: The other arguments of `TaskEnv`.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> import asyncio
        >>> from ors_gym.env import AsyncTaskEnv
        >>> async def play():
        ...     async with AsyncTaskEnv("guess") as env:
        ...         await env.open(7)
        ...         return await env.step({"tool": "guess", "input": {"number": 50}})
        >>> observation, reward, terminated, truncated, info = asyncio.run(play())
        >>> info["tool"], info["task_index"]
        ('guess', 7)
    """

    client: AsyncORSClient

    @shows_settings(TaskEnvSettings)
    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        *,
        client: AsyncORSClient | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(env_name, base_url, arguments)
        self._owned: AsyncORSClient | None = None
        if client is None:
            arguments = self._settings.client_arguments()
            client = self._owned = AsyncORSClient(find_server(base_url), **arguments)
        else:
            refuse_client_arguments(arguments)
        self.client = client
        self._rules.catalog = client.catalog

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def fetch_tools(self) -> None:
        """As `TaskEnv.fetch_tools`, awaitable."""
        await self.client.run(self._fetching_tools())

    async def open(
        self,
        task: Task | Opening[AsyncSession] | TaskChoice,
        *,
        split: str | None = None,
    ) -> ResetResult:
        """As `TaskEnv.open`, awaitable."""
        self.check_usable()
        await self.leave(wait=False)
        found = self._tried = await self.find_task(task, split=split)
        opened = await self._wait_for(task) if isinstance(task, Opening) else None
        if opened is None:
            opened = await self.client.run(self._opening(found))
        result = self._rules.begin(opened)
        if self.render_mode == "human":
            self.render()
        return result

    async def _wait_for(self, ahead: Opening[AsyncSession]) -> Opened[Any] | None:
        pending = ahead.take()
        if pending is None:
            return None
        try:
            return await pending
        except ORSError:
            # It is opened once more now; if that fails too, its error is raised.
            return None

    async def open_ahead(
        self, task: Task | TaskChoice, *, split: str | None = None
    ) -> Opening[AsyncSession]:
        """As `TaskEnv.open_ahead`, awaitable."""
        self.check_usable()
        found = await self.find_task(task, split=split)
        return Opening(found, self.client.run_in_background(self._opening(found)))

    async def find_task(
        self,
        task: Task | Opening[AsyncSession] | TaskChoice,
        *,
        split: str | None = None,
    ) -> Task:
        """As `TaskEnv.find_task`, awaitable."""
        return await self.client.run(self._finding(task, split))

    async def step(self, action: object) -> StepResult:
        """As `TaskEnv.step`, awaitable."""
        rules = self._rules
        read = rules.read_action(action)
        if isinstance(read, PendingCall):
            session, call = read
            try:
                output = await session.call_tool(call["tool"], call["input"])
            except ORSError as error:
                result = rules.failed(call, error)
            except BaseException:
                rules.interrupted()
                raise
            else:
                result = rules.succeeded(call, output)
        else:
            result = read
        if self.render_mode == "human":
            self.render()
        return result

    async def leave(self, *, wait: bool = True) -> None:
        """As `TaskEnv.leave`, awaitable."""
        session = self._forget_episode()
        if session is not None:
            await session.close(wait=wait)

    async def close(self) -> None:
        """As `TaskEnv.close`, awaitable."""
        session = self._rules.close()
        try:
            if session is not None:
                await session.close()
        finally:
            if self._owned is not None:
                await self._owned.aclose()

    async def get_task(self) -> TaskSpec | None:
        """As `TaskEnv.task`, awaitable."""
        task = self._rules.task
        if task is None or task.spec is not None:
            return task.spec if task is not None else None
        return await self.client.get_task(self.environment, task.split, task.index)
