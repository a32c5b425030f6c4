"""The envs that choose their tasks: one ORS session at a time, blocking and async."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from ors_gym._shown_text import even_half_made
from ors_gym.client import AsyncORSClient, AsyncSession, ORSClient, Session
from ors_gym.client._client_core import Catalog
from ors_gym.client._session_core import SessionCore
from ors_gym.env._open_for_task import Opening
from ors_gym.env._settings import (
    UNPICKLED,
    EnvSettings,
    shows_settings,
    spec_arguments,
    without_secrets,
)
from ors_gym.env._step_rules import ResetResult
from ors_gym.env._task_env import AsyncTaskEnv, TaskEnv
from ors_gym.env._task_order import (
    NextTask,
    Task,
    TaskSchedule,
    TaskSet,
    choose_split,
)
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Operation
from ors_gym.types import Split

S = TypeVar("S", bound=SessionCore)

RESET_OPTIONS: Final = ("task_index", "task", "split")
"""The options of ``reset``; `TaskChooser.choose_task` reads them."""


class ORSEnv(TaskEnv, gymnasium.Env[Any, Any]):  # type: ignore[override]  # a cached property can be set
    """An environment of an ORS server, as a Gymnasium env.

    ``reset()`` opens a session, ``step(action)`` calls a tool, ``close()`` deletes the
    session. Spaces: actions are calls ``{"tool": name, "input": {...}}`` (or text),
    observations are the text of the reply (or text and images).

    Args:
        env_name: The environment's name on the server, in any case; ``Owner/Name`` at
            a gateway, or ``Owner/Name/environment`` if it has several.
        base_url: The server's address; the variable ``ORS_BASE_URL`` if None, and
            without that the embedded server with the bundled environments.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Narrows the split: a range, indexes, task specs, or a function
            ``f(rng, history) -> index`` for a curriculum.
        task_order: ``sequential``, ``shuffle`` or ``random``, as `reset` says.
        task_offset: This env's number, from 0, among those that share the tasks.
        task_stride: How many envs share the tasks.
        observation_mode: ``text``, or ``dict`` for ``{"text", "images"}``.
        action_mode: ``tool_call``, or ``text`` for an action space of text.
        plain_text: What text without a tool call is. ``invalid``: an invalid action.
            ``submit``: the argument of the one tool with one required string.
        terminal_tool_as: How a model reaches the terminal tool that a server declares.
            ``tool``: by a call. ``text``: by a message without a call, which is the
            tool's argument; the specs for models leave the tool out. ``both``: either
            way. The action space has the tool in any case.
        tool_schemas: Narrows the schemas of arguments, by tool and argument, where the
            server accepts less than it says: ``{"move": {"direction": {"enum": ["up",
            "down"]}}}``; see `ors_gym.spaces.narrow_tools`.
        max_episode_steps: Steps after which an episode is truncated.
        call_timeout: Seconds for a tool call.
        setup_timeout: Seconds for a reset, the environment's set-up included.
        invalid_action_reward: The reward of an action that is no valid call.
        on_tool_error: What a tool that raised leads to. ``observe``: an observation.
            ``raise``: an exception. ``truncate``: the end of the episode. Or a table
            by tool, such as ``{"submit": "raise"}``; tools not in it are observed.
        on_error: Whether an outage raises, or truncates the episode.
        prefetch: Whether the next task's session is opened while this one is played.
        render_mode: ``ansi``, ``human``, ``rgb_array`` (extra ``images``) or None.
        api_key: Sent as ``X-API-Key``; the variable ``ORS_API_KEY`` if None.
        secrets: Values for the environment, by name; a value may be a pair of the text
            and the domains that a gateway lets it out to.
        toolset: The name of a toolset of the server that sessions get too, such as
            ``claude-code``.
        env_overrides: Environment variables of the environment's container, which a
            gateway sets.
        headers: Sent with every request.
        create_options: Further fields for the body of /create.
        session_options: The body of /create_session.
        client_options: Further arguments of the env's `ORSClient`.
        client: A client to use in place of an own one. The env does not close it.

    Raises:
        UnknownEnvironmentError: If the server has no such environment.
        ConnectionFailedError: If the server cannot be reached.
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = gym.make("ors/guess")
        >>> observation, info = env.reset(seed=7)
        >>> action = {"tool": "guess", "input": {"number": 50}}
        >>> observation, reward, terminated, truncated, info = env.step(action)
        >>> info["tool"], info["task_index"]
        ('guess', 7)
        >>> env.close()
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "human", "rgb_array"],
        "render_fps": 1,
    }
    _settings_class = EnvSettings
    _settings: EnvSettings

    @shows_settings(EnvSettings)
    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        *,
        client: ORSClient | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(env_name, base_url, client=client, **arguments)
        self._spec: EnvSpec | None = None
        self._chooser: TaskChooser[Session] = TaskChooser(
            self._settings, self.client.catalog
        )
        self.fetch_tools()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> ResetResult:
        """Start an episode; the previous session is deleted in the background.

        Args:
            seed: Plays the task that it selects: in ``sequential`` order the task
                ``seed`` modulo their number. Later resets go on from there. The first
                reset without a seed draws one.
            options: ``task_index``, ``task`` (a spec) or ``split``: one episode outside
                the order. Those of a split have an order of their own.

        Returns:
            The prompt as an observation, and the info.

        Raises:
            SetupFailedError: If the environment's set-up raised.
            UnknownTaskError: If there is no such split or task.
            ConnectionFailedError: If the server cannot be reached.
        """
        super().reset(seed=seed)
        chooser = self._chooser
        self.check_usable()
        if seed is not None:
            chooser.seed(seed)
        chooser.record(self.outcome)
        self.leave(wait=False)
        result = self.open(self.client.run(chooser.choose(self.np_random, options)))
        if self._settings.prefetch and chooser.ahead is None:
            task = self.client.run(chooser.choose_task(self.np_random))
            chooser.ahead = self.open_ahead(task)
        return result

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode.

        Returns:
            The whole episode as text with ``render_mode="ansi"``; a picture of its
            newest turns with ``"rgb_array"``, always of one size; None with
            ``"human"``, which prints what is new, in colours if rich is installed.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() does nothing without a render_mode; make the env with "
                "render_mode='ansi', 'human' or 'rgb_array'"
            )
        return super().render()

    def close(self) -> None:
        """Delete the session, in bounded time. Closing twice is fine."""
        self._chooser.discard_ahead()
        super().close()

    def discard(self) -> None:
        """Close the env without waiting: the background deletes its sessions."""
        self._chooser.discard_ahead()
        super().discard()

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """Narrow the tasks from the next reset on.

        Args:
            tasks: As for the constructor; None for the whole split.

        Raises:
            InvalidRequestError: If the set is empty or none of these.
        """
        self._chooser.set_tasks(tasks)

    @property
    def num_tasks(self) -> int:
        """The number of tasks that are played."""
        return self.client.run(self._chooser.count_tasks())

    @property
    def splits(self) -> list[Split]:
        """The splits of the environment."""
        return self.client.run(self._chooser.list_splits())

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium made the env, without the secrets among the arguments."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec = copy.copy(spec)
            spec.kwargs = spec_arguments(spec.kwargs, self.base_url)
        self._spec = spec

    @even_half_made
    def __str__(self) -> str:
        return f"<ORSEnv {self.environment!r} at {self.base_url}>"

    def __repr__(self) -> str:
        return str(self)

    def __getstate__(self) -> dict[str, Any]:
        arguments = without_secrets(vars(self._settings))
        if self._owned is None:
            arguments["base_url"] = self.base_url
        if self._settings.secrets or self._settings.env_overrides:
            arguments["secrets"] = UNPICKLED
        return {"arguments": arguments, "spec": self._spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]
        self._spec = state["spec"]


class AsyncORSEnv(AsyncTaskEnv):
    """`ORSEnv` with awaitable ``reset``, ``step`` and ``close``: not a gymnasium Env.

    Its constructor asks the server for nothing: the action space has the tools after
    the first reset.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        client: A client to use in place of an own one. The env does not close it.
        **arguments: The other arguments of `ORSEnv`.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> import asyncio
        >>> async def play():
        ...     async with AsyncORSEnv("guess") as env:
        ...         await env.reset(seed=7)
        ...         action = {"tool": "guess", "input": {"number": 50}}
        ...         return await env.step(action)
        >>> observation, reward, terminated, truncated, info = asyncio.run(play())
        >>> info["tool"]
        'guess'
    """

    _settings_class = EnvSettings
    _settings: EnvSettings

    @shows_settings(EnvSettings)
    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        *,
        client: AsyncORSClient | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(env_name, base_url, client=client, **arguments)
        self._chooser: TaskChooser[AsyncSession] = TaskChooser(
            self._settings, self.client.catalog
        )
        self.np_random = np.random.default_rng()

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> ResetResult:
        """As `ORSEnv.reset`, awaitable."""
        chooser = self._chooser
        self.check_usable()
        if seed is not None:
            self.np_random = np.random.default_rng(seed)
            self.seed_tasks(seed)
        chooser.record(self.outcome)
        await self.leave(wait=False)
        chosen = await self.client.run(chooser.choose(self.np_random, options))
        result = await self.open(chosen)
        if self._settings.prefetch:
            await self.open_next()
        return result

    async def open_next(self) -> None:
        """Open the session of the next task ahead, unless that was done.

        The next reset without options plays it.
        """
        chooser = self._chooser
        if chooser.ahead is None:
            task = await self.client.run(chooser.choose_task(self.np_random))
            chooser.ahead = await self.open_ahead(task)

    @property
    def next_task_is_known(self) -> bool:
        """Whether the next task does not depend on how this episode ends."""
        return self._chooser.is_foreseeable

    async def prepare(self, options: Mapping[str, Any] | None = None) -> None:
        """Ask the server for what a reset with these options has to know of the splits.

        The client keeps the answers, so of many envs that share it only one has to ask.
        """
        await self.client.run(self._chooser.prepare(options))

    def seed_tasks(self, seed: int) -> None:
        """Choose where the order of tasks goes on, as the seed of a reset does."""
        self._chooser.seed(seed)

    async def close(self) -> None:
        """As `ORSEnv.close`, awaitable."""
        self._chooser.discard_ahead()
        await super().close()

    def discard(self) -> None:
        """As `ORSEnv.discard`."""
        self._chooser.discard_ahead()
        super().discard()

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """As `ORSEnv.set_tasks`."""
        self._chooser.set_tasks(tasks)

    async def count_tasks(self) -> int:
        """Return the number of tasks that are played."""
        return await self.client.run(self._chooser.count_tasks())

    async def list_splits(self) -> list[Split]:
        """Return the splits of the environment."""
        return await self.client.run(self._chooser.list_splits())

    @even_half_made
    def __repr__(self) -> str:
        return f"<AsyncORSEnv {self.environment!r} at {self.base_url}>"


class TaskChooser(Generic[S]):
    """Chooses the task of each episode, and keeps the session that was opened ahead.

    Its operations ask the server for nothing that the client knows already.
    """

    def __init__(self, settings: EnvSettings, catalog: Catalog) -> None:
        self.ahead: Opening[S] | None = None
        """The session of the next task in the order, if it was opened ahead."""
        self._settings = settings
        self._catalog = catalog
        self._schedule = TaskSchedule(
            settings.tasks,
            settings.task_order,
            settings.task_offset,
            settings.task_stride,
        )

    @property
    def is_foreseeable(self) -> bool:
        """Whether the next task does not depend on how the present episode ends."""
        return self._schedule.is_foreseeable

    def choose(
        self, random: np.random.Generator, options: Mapping[str, Any] | None
    ) -> Operation[Task | Opening[S]]:
        """Return the operation that chooses what the next episode plays.

        Without options that is the session that was opened ahead, if there is one.
        """
        ahead = self.ahead
        if ahead is not None and not options:
            self.ahead = None
            return ahead
        return (yield from self.choose_task(random, options))

    def choose_task(
        self, random: np.random.Generator, options: Mapping[str, Any] | None = None
    ) -> Operation[Task]:
        """Return the operation that chooses the next task.

        Raises:
            UnknownTaskError: If there is no such split or task.
            InvalidRequestError: If an option is not known.
        """
        options = options or {}
        for name in options:
            if name not in RESET_OPTIONS:
                raise InvalidRequestError(
                    f"reset does not know the option {name!r}; it takes "
                    f"{', '.join(RESET_OPTIONS)}"
                )
        if "task" in options:
            if isinstance(options["task"], NextTask):
                return (yield from self._play_on(options["task"], random))
            if not isinstance(options["task"], dict):
                raise InvalidRequestError("the option 'task' is a task spec, a dict")
            return Task(self._wanted(options) or "", -1, options["task"])
        split = choose_split((yield from self.list_splits()), self._wanted(options))
        schedule = self._schedule
        if "task_index" in options:
            count = yield from self._count(split)
            return schedule.task_at(split, options["task_index"], count)
        known = (yield from self._count(split)) if schedule.size is None else None
        return schedule.next_task(split, known, random, aside="split" in options)

    def _play_on(
        self, changed: NextTask, random: np.random.Generator
    ) -> Operation[Task]:
        """Return the operation that takes the next place of the order."""
        if self.ahead is not None:
            task = self.ahead.task
            self.discard_ahead()
        else:
            task = yield from self.choose_task(random)
        spec = changed.spec if changed.spec is not None else task.spec
        if spec is None:
            env_name = self._settings.env_name
            spec = yield from self._catalog.task(env_name, task.split, task.index)
        return Task(task.split, -1, {**spec, **changed.extra})

    def prepare(self, options: Mapping[str, Any] | None) -> Operation[None]:
        """Return the operation that asks for what `choose_task` has to know.

        Envs that share a client ask once then, instead of all at the same time.
        """
        options = options or {}
        if "task" in options:
            return
        split = choose_split((yield from self.list_splits()), self._wanted(options))
        if self._schedule.size is None or "task_index" in options:
            yield from self._count(split)

    def list_splits(self) -> Operation[list[Split]]:
        """Return the operation that lists the splits."""
        return self._catalog.splits(self._settings.env_name)

    def count_tasks(self) -> Operation[int]:
        """Return the operation that counts the tasks that are played."""
        if self._schedule.size is not None:
            return self._schedule.size
        split = choose_split((yield from self.list_splits()), self._settings.split)
        return (yield from self._count(split))

    def _count(self, split: str) -> Operation[int]:
        return self._catalog.count_tasks(self._settings.env_name, split)

    def _wanted(self, options: Mapping[str, Any]) -> str | None:
        split: str | None = options.get("split", self._settings.split)
        return split

    def seed(self, seed: int) -> None:
        """Let the next episode play the task that a seed selects."""
        self._schedule.seed(seed)
        self.discard_ahead()

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """Narrow the tasks from the next episode on."""
        if self.ahead is not None:
            self.discard_ahead()
            self._schedule.step_back()
        self._schedule.set_tasks(tasks)

    def record(self, outcome: tuple[int, float | None] | None) -> None:
        """Note an episode's task index and reward, for curricula."""
        if outcome is not None:
            self._schedule.history.append(outcome)

    def discard_ahead(self) -> None:
        """Have the session deleted that was opened ahead, if there is one."""
        if self.ahead is not None:
            self.ahead.discard()
            self.ahead = None
