"""One env of a vector env: when its next episode begins, which failures end one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gymnasium.vector import AutoresetMode

from ors_gym.client import AsyncORSClient
from ors_gym.env import AsyncORSEnv
from ors_gym.env._settings import EnvSettings
from ors_gym.env._step_rules import ResetResult
from ors_gym.errors import (
    InvalidRequestError,
    ORSError,
    SetupFailedError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.formats._actions import check_is_action
from ors_gym.types import Split, TaskSpec
from ors_gym.vector._loop import SlotLoop

_NOT_CALLED: Final = ("reset", "step", "close")
_SERVER_IS_UP: Final = ("", ToolRejectedError.kind, ToolFailedError.kind)
"""The kinds of error after which a session can surely be opened."""


class SlotResult(NamedTuple):
    """What a reset or a step of one env gave."""

    observation: Any
    info: dict[str, Any]
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    final: ResetResult | None = None
    """The last observation and info of an episode that the same step ended."""
    unopened: ORSError | None = None
    """Why the session of the episode that begins could not be opened."""


class VectorSlot:
    """One async env, and what the vector env decides about it.

    That is when the next episode begins, and which failures end an episode in place of
    being raised. ``get_attr``, ``set_attr`` and ``call`` see the attributes of the slot
    and those of its env.
    """

    def __init__(
        self,
        settings: EnvSettings,
        client: AsyncORSClient,
        loop: SlotLoop,
        metadata: Mapping[str, Any],
        *,
        open_ahead: bool,
        max_failed_starts: int | None,
    ) -> None:
        self.env = AsyncORSEnv(client=client, **settings.without_client_arguments())
        self.metadata = metadata
        self._raises = settings.on_error == "raise"
        self._loop = loop
        self._mode = metadata["autoreset_mode"]
        # In the other modes the reset comes at once, or only if somebody asks for it,
        # often with a seed that changes the plan.
        self._opens_ahead = open_ahead and self._mode is AutoresetMode.NEXT_STEP
        self._over = False
        self.has_started = False
        """Whether a session was opened at least once."""
        self.failed_starts = 0
        """How many sessions could not be opened, in all."""
        self._failed_in_a_row = 0
        self._most_in_a_row = max_failed_starts

    async def prepare(self, options: Mapping[str, Any] | None) -> None:
        """Ask for what every slot has to know of the splits: one slot asks for all."""
        try:
            await self.env.prepare(options)
        except ORSError as error:
            # Where an outage only ends an episode, each slot finds out for itself.
            if not error.outage or self._raises:
                raise

    async def begin(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> SlotResult:
        """Start an episode.

        With ``on_error="truncate"`` an episode that cannot be opened shows why, and its
        first step ends it.
        """
        self._over = False
        try:
            observation, info = await self.env.reset(seed=seed, options=options)
        except ORSError as error:
            ends_episode = error.outage or isinstance(error, SetupFailedError)
            if not ends_episode or self._raises:
                raise
            self._count_failed_start(error)
            observation, info = self.env.begin_without_session(error)
            return SlotResult(observation, info, unopened=error)
        self.has_started = True
        self._failed_in_a_row = 0
        return SlotResult(observation, info)

    def _count_failed_start(self, error: ORSError) -> None:
        """Count a session that could not be opened; raise if there are too many."""
        self.failed_starts += 1
        self._failed_in_a_row += 1
        if self._failed_in_a_row == self._most_in_a_row:
            error.add_note(
                f"the last {self._failed_in_a_row} sessions of this env failed to "
                "start; max_failed_starts= says how many may"
            )
            self._failed_in_a_row = 0
            raise error

    @property
    def reset_is_due(self) -> bool:
        """Whether the next step ignores its action and starts an episode."""
        return self._over and self._mode is AutoresetMode.NEXT_STEP

    async def advance(self, action: object) -> SlotResult:
        """Take a step, or start an episode where the autoreset mode wants one."""
        if self.reset_is_due:
            return await self.begin()
        observation, reward, terminated, truncated, info = await self.env.step(action)
        self._over = terminated or truncated
        result = SlotResult(observation, info, reward, terminated, truncated)
        if self._over and self._mode is AutoresetMode.SAME_STEP:
            begun = await self.begin()
            return result._replace(
                observation=begun.observation,
                info=begun.info,
                final=(observation, info),
                unopened=begun.unopened,
            )
        if self._over and self._opens_ahead and info["error_kind"] in _SERVER_IS_UP:
            await self._open_next()
        return result

    async def _open_next(self) -> None:
        """Open the next episode's session, while the other envs go on."""
        if self.env.next_task_is_known:
            try:
                await self.env.open_next()
            except ORSError:
                # No task was chosen: the reset asks again, and deals with the error.
                return

    def check_ready(self, action: object) -> None:
        """Raise unless `advance` has something to do, and an action to do it with."""
        if self.reset_is_due:
            self.env.check_usable()
        else:
            self.env.check_steppable()
            check_is_action(action, "an env was given")

    def interrupt(self) -> None:
        """Note that what the slot was doing was given up: it has to be reset."""
        self._over = False
        self.env.interrupt()

    def get(self, name: str) -> Any:
        """Return an attribute of the slot, else of its env."""
        if name in _NOT_CALLED:
            raise InvalidRequestError(
                f"{name!r} is not called env by env; use the vector env's own methods"
            )
        is_own = name in vars(self) or hasattr(type(self), name)
        return getattr(self if is_own else self.env, name)

    @property
    def task(self) -> TaskSpec | None:
        """The current task, or None. It usually holds the answer."""
        return self._loop.run(self.env.get_task())

    @property
    def num_tasks(self) -> int:
        return self._loop.run(self.env.count_tasks())

    @property
    def splits(self) -> list[Split]:
        return self._loop.run(self.env.list_splits())

    @property
    def np_random_seed(self) -> int:
        """What the env's own generator was seeded with."""
        entropy: int = self.env.np_random.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]
        return entropy
