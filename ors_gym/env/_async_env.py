"""The async environment: what async trainers and evaluations drive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.env._opening import Opened, Prefetch
from ors_gym.env._rules import EnvCore, ResetResult, StepResult
from ors_gym.env._settings import EnvConfig, find_server
from ors_gym.env._task_order import Task, TaskSet
from ors_gym.errors import ORSError
from ors_gym.types import Split, TaskSpec, ToolSpec

__all__ = ["AsyncORSEnv", "make_async_core"]


def make_async_core(config: EnvConfig, client: AsyncORSClient) -> EnvCore[AsyncSession]:
    """Make the core of an env whose sessions an async client opens.

    Args:
        config: The env's arguments.
        client: The client.

    Returns:
        A core that has asked the server for nothing yet.
    """

    def make_session(environment: str, task: Mapping[str, Any]) -> AsyncSession:
        return client.session(environment, **task, **config.session_arguments())

    return EnvCore(config, client.link, make_session)


class AsyncORSEnv:
    """`ORSEnv` with awaitable ``reset``, ``step`` and ``close``: not a gymnasium Env.

    Its constructor asks for nothing; the spaces exist after the first reset.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        client: A client to use, which is not closed here, in place of an own one.
        **arguments: The other arguments of `ORSEnv`; ``render_mode`` too.

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

    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        *,
        client: AsyncORSClient | None = None,
        **arguments: Any,
    ) -> None:
        config = EnvConfig(env_name=env_name, base_url=base_url, **arguments)
        owns_client = client is None
        if client is None:
            client = AsyncORSClient(find_server(base_url), **config.client_arguments())
        self._adopt(client, make_async_core(config, client), owns_client=owns_client)
        self._learned = False

    def _adopt(
        self,
        client: AsyncORSClient,
        core: EnvCore[AsyncSession],
        *,
        owns_client: bool = False,
    ) -> None:
        self._client = client
        self._owns_client = owns_client
        self._core = core
        self._config = core.config
        self._prefetch: Prefetch[AsyncSession] = Prefetch(client.link)
        self._learned = True
        self._starting: Task | None = None
        """The task that the last reset chose, whether or not its session opened."""
        self._random = np.random.default_rng()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> ResetResult:
        """Start an episode, as `ORSEnv.reset` does.

        Args:
            seed: Plays the task that it selects.
            options: ``task_index``, ``task`` or ``split``: one episode outside the
                order.

        Returns:
            The prompt as an observation, and the info.

        Raises:
            SetupFailedError: If the environment's set-up raised.
            UnknownTaskError: If there is no such split or task.
        """
        core = self._core
        core.check_usable()
        await self._learn()
        if seed is not None:
            self._random = np.random.default_rng(seed)
            core.schedule.seed(seed)
            self._prefetch.drop()
        core.leave()
        self._starting = None
        result = core.begin(await self._next_episode(options))
        if self._config.prefetch and not self._prefetch.pending:
            task = await self._client.run(core.plan(self._random, None))
            self._prefetch.open(task, core.open(task))
        return result

    async def _learn(self) -> None:
        if not self._learned:
            await self._client.run(self._core.learn())
            self._learned = True

    async def _next_episode(
        self, options: Mapping[str, Any] | None
    ) -> Opened[AsyncSession]:
        core = self._core
        prefetched = None if options else self._prefetch.take()
        if prefetched is None:
            task = await self._client.run(core.plan(self._random, options))
            self._starting = task
            return await self._client.run(core.open(task))
        self._starting = prefetched.task
        try:
            return await asyncio.wrap_future(prefetched.future)
        except ORSError:
            # The server may be back by now, and the task is still to be played.
            return await self._client.run(core.open(prefetched.task))

    async def step(self, action: object) -> StepResult:
        """Call a tool, as `ORSEnv.step` does.

        Args:
            action: A tool call in any form.

        Returns:
            Observation, reward, terminated, truncated and info.

        Raises:
            EpisodeOverError: If there is no episode to step.
            ORSError: For an outage, unless ``on_error="truncate"``.
        """
        core = self._core
        taken = core.take(action)
        if len(taken) != 2:
            return taken
        session, call = taken
        try:
            output = await session.call_tool(call["tool"], call["input"])
        except ORSError as error:
            return core.failed(call, error)
        except BaseException:
            core.interrupted()
            raise
        return core.succeeded(call, output)

    async def close(self) -> None:
        """Delete the session, in bounded time. Closing twice is fine."""
        core = self._core
        if core.session is not None:
            await core.session.close()
        self._prefetch.drop()
        core.closed()
        if self._owns_client:
            await self._client.aclose()

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """Narrow the tasks from the next reset on.

        Args:
            tasks: As for the constructor; None for the whole split.

        Raises:
            InvalidRequestError: If the set is empty or none of these.
        """
        if self._prefetch.drop():
            self._core.schedule.step_back()
        self._core.schedule.set_tasks(tasks)

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode, as `ORSEnv.render` does; ``human`` prints here only."""
        return self._core.render()

    async def get_task(self) -> TaskSpec | None:
        """Return the current task, or None. It usually holds the answer."""
        task = self._core.task
        if task is None or task.spec is not None:
            return task.spec if task is not None else None
        return await self._client.get_task(
            self._core.environment, task.split, task.index
        )

    async def count_tasks(self) -> int:
        """Return the number of tasks that are played."""
        await self._learn()
        return await self._client.run(self._core.count_tasks())

    async def list_splits(self) -> list[Split]:
        """Return the splits of the environment."""
        await self._learn()
        return await self._client.run(self._core.list_splits())

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """The calls of the current session's tools; there after the first reset."""
        return self._core.action_space

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """Text, or text and images; there after the first reset."""
        return self._core.observation_space

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools of the current session."""
        return self._core.tools

    @property
    def environment(self) -> str:
        """The environment's name as the server spells it, after the first reset."""
        return self._core.environment

    @property
    def session_id(self) -> str | None:
        """The server's id of the current session, or None."""
        session = self._core.session
        return session.session_id if session is not None else None

    def __repr__(self) -> str:
        return f"<AsyncORSEnv {self._core.environment!r} at {self._client.base_url}>"
