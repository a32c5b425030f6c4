"""One env of a vector env."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode

from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.env._async_env import AsyncORSEnv
from ors_gym.env._rules import EnvCore, ResetResult
from ors_gym.errors import (
    InvalidRequestError,
    ORSError,
    SetupFailedError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.types import Split, TaskSpec
from ors_gym.vector._loop import SlotLoop

__all__ = ["Outcome", "VectorSlot"]

_NOT_CALLED: Final = ("reset", "step", "close")
_SERVER_IS_UP: Final = ("", ToolRejectedError.kind, ToolFailedError.kind)
"""The kinds of error that leave no doubt whether a session can be opened."""


class Outcome(NamedTuple):
    """What a reset or a step of one env gave."""

    observation: Any
    info: dict[str, Any]
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    final: ResetResult | None = None
    """The last observation and info of an episode that the same step ended."""


class VectorSlot(AsyncORSEnv):
    """One env of a vector env: what ``get_attr``, ``set_attr`` and ``call`` see.

    Args:
        client: The client that all slots share.
        core: The slot's own core, which has learned the tools.
        loop: The loop that all slots share.
        autoreset_mode: When a new episode begins after the end of one.
        metadata: The vector env's.
        open_ahead: Whether the next session is opened as soon as an episode is over.
    """

    def __init__(
        self,
        client: AsyncORSClient,
        core: EnvCore[AsyncSession],
        loop: SlotLoop,
        autoreset_mode: AutoresetMode,
        metadata: Mapping[str, Any],
        *,
        open_ahead: bool,
    ) -> None:
        self._adopt(client, core)
        self._loop = loop
        self._mode = autoreset_mode
        # In the other modes the reset comes at once, or only if somebody asks for it,
        # often with a seed that changes the plan.
        self._opens_ahead = open_ahead and autoreset_mode is AutoresetMode.NEXT_STEP
        self._over = False
        self.metadata = metadata
        self.render_mode = core.config.render_mode

    async def prepare(self, options: Mapping[str, Any] | None) -> None:
        """Ask for what every slot has to know of the splits, so that one asks for all.

        Args:
            options: The options of a reset.
        """
        try:
            await self._client.run(self._core.prepare(options))
        except ORSError as error:
            # Where an outage is borne, each slot finds out for itself.
            if not error.outage or self._config.on_error == "raise":
                raise

    async def begin(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> Outcome:
        """Start an episode.

        Args:
            seed: As for `ORSEnv.reset`.
            options: As for `ORSEnv.reset`.

        Returns:
            The prompt, or with ``on_error="truncate"`` why there is none: the next
            step then ends the episode.
        """
        self._over = False
        try:
            observation, info = await self.reset(seed=seed, options=options)
        except ORSError as error:
            bearable = error.outage or isinstance(error, SetupFailedError)
            if not bearable or self._config.on_error == "raise":
                raise
            observation, info = self._core.begin_without(self._starting, error)
        return Outcome(observation, info)

    async def advance(self, action: object) -> Outcome:
        """Take a step, or start an episode where the autoreset mode wants one.

        Args:
            action: A tool call in any form.

        Returns:
            What it gave.
        """
        if self._over and self._mode is AutoresetMode.NEXT_STEP:
            return await self.begin()
        observation, reward, terminated, truncated, info = await self.step(action)
        self._over = terminated or truncated
        outcome = Outcome(observation, info, reward, terminated, truncated)
        if not self._over or self._mode is not AutoresetMode.SAME_STEP:
            if self._over and self._opens_ahead:
                await self._open_next(info["error_kind"])
            return outcome
        begun = await self.begin()
        return outcome._replace(
            observation=begun.observation, info=begun.info, final=(observation, info)
        )

    async def _open_next(self, error_kind: str) -> None:
        """Open the next episode's session, while the other envs go on.

        Args:
            error_kind: How the episode ended: after an outage the reset finds out by
                itself whether the server is back.
        """
        core = self._core
        if self._prefetch.pending or error_kind not in _SERVER_IS_UP:
            return
        if not core.schedule.foreseeable:
            return
        try:
            task = await self._client.run(core.plan(self._random, None))
        except ORSError:
            # Nothing was chosen: the reset asks again, and deals with what comes.
            return
        self._prefetch.open(task, core.open(task))

    def check_ready(self) -> None:
        """Raise unless `advance` has something to do.

        Raises:
            EpisodeOverError: If there is no episode to step.
        """
        if not self._over or self._mode is not AutoresetMode.NEXT_STEP:
            self._core.check_steppable()

    def check_usable(self) -> None:
        """Raise unless an episode can be started.

        Raises:
            SessionClosedError: If the env was closed.
        """
        self._core.check_usable()

    def interrupt(self) -> None:
        """Note that what the slot was doing was given up: it has to be reset."""
        self._over = False
        self._core.interrupted()

    def get(self, name: str) -> Any:
        """Return an attribute, for the vector env's ``get_attr`` and ``call``.

        Args:
            name: Its name.

        Raises:
            InvalidRequestError: If the vector env itself has to do it.
        """
        if name in _NOT_CALLED:
            raise InvalidRequestError(
                f"{name!r} is not called env by env; use the vector env's own methods"
            )
        return getattr(self, name)

    @property
    def task(self) -> TaskSpec | None:
        """The current task, or None. It usually holds the answer."""
        return self._loop.run(self.get_task())

    @property
    def num_tasks(self) -> int:
        """The number of tasks that are played."""
        return self._loop.run(self.count_tasks())

    @property
    def splits(self) -> list[Split]:
        """The splits of the environment."""
        return self._loop.run(self.list_splits())

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._client.base_url

    @property
    def np_random(self) -> np.random.Generator:
        """The env's own generator."""
        return self._random

    @property
    def np_random_seed(self) -> int:
        """What that was seeded with."""
        entropy: int = self._random.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]
        return entropy
