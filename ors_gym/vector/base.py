"""What a vector env is made of: its slots, their attributes, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from ors_gym.async_env import make_async_core
from ors_gym.client import AsyncORSClient
from ors_gym.config import EnvConfig, without_secrets
from ors_gym.errors import InvalidRequestError
from ors_gym.server_address import find_server
from ors_gym.vector.loop import SlotLoop
from ors_gym.vector.slot import VectorSlot

__all__ = ["SlottedVectorEnv"]


class SlottedVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """The envs of a vector env, without what is done with all of them at once.

    Args:
        env_name: As for `ORSVectorEnv`, like all others.
        base_url: The server's address.
        num_envs: The number of envs.
        autoreset_mode: When an episode follows one that ended.
        task_offset: Which of the vector envs that share a set of tasks this one is.
        task_stride: How many of them share it.
        on_error: Whether an outage truncates its env's episode, or raises.
        open_ahead: Whether an env's next session is opened once its episode is over.
        render_mode: ``ansi``, ``rgb_array`` (extra ``images``) or None.
        client: A client to use in place of an own one.
        **arguments: The other arguments of `ORSEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 1,
    }

    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        task_offset: int = 0,
        task_stride: int = 1,
        on_error: Literal["raise", "truncate"] = "truncate",
        open_ahead: bool = True,
        render_mode: str | None = None,
        client: AsyncORSClient | None = None,
        **arguments: Any,
    ) -> None:
        if num_envs < 1:
            raise InvalidRequestError(f"num_envs is {num_envs}; it must be at least 1")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InvalidRequestError(
                f"render_mode is {render_mode!r}; it must be one of "
                f"{self.metadata['render_modes']} or None"
            )
        config = EnvConfig(
            env_name=env_name,
            base_url=base_url,
            task_offset=task_offset,
            task_stride=task_stride,
            on_error=on_error,
            render_mode=render_mode,
            **arguments,
        )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self._mode}  # type: ignore[misc]
        self._spec: EnvSpec | None = None
        self._owned = None
        if client is None:
            client = AsyncORSClient(find_server(base_url), **config.client_arguments())
            self._owned = client
        self._loop = SlotLoop()
        # The loop and the client do not refer to this object, so it can be collected.
        self._finalizer = weakref.finalize(self, _let_go, self._loop, self._owned)
        self._make_slots(config, client, open_ahead=open_ahead)

    def _make_slots(
        self, config: EnvConfig, client: AsyncORSClient, *, open_ahead: bool
    ) -> None:
        core = make_async_core(config, client)
        self._loop.run(client.run(core.learn()))
        count = self.num_envs
        self.single_action_space = core.action_space
        self.single_observation_space = core.observation_space
        self.observation_space = batch_space(core.observation_space, count)
        # Each slot's part of the batched space follows the tools of its sessions.
        self.action_space = batch_space(core.action_space, count)
        spaces: Sequence[Any] = self.action_space.spaces  # type: ignore[attr-defined]
        offset = config.task_offset * count
        stride = config.task_stride * count
        start = int(np.random.default_rng().integers(2**31))
        self._slots: list[VectorSlot] = []
        for i, space in enumerate(spaces):
            own = core.clone(offset + i, stride, space)
            if config.task_stride == 1:
                own.schedule.agree(start)
            slot = VectorSlot(
                client,
                own,
                self._loop,
                self._mode,
                self.metadata,
                open_ahead=open_ahead,
            )
            self._slots.append(slot)
        # What each env showed last: a masked reset gives it again for the others.
        self._shown: list[Any] = [core.empty_observation() for _ in range(count)]
        self._nothing: Any = create_empty_array(core.observation_space, count)

    def _give_up(self, ids: Sequence[int]) -> None:
        given_up = set(ids).intersection(self._loop.busy)
        self._loop.abandon(given_up)
        for i in given_up:
            self._slots[i].interrupt()

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each env.

        Args:
            name: Its name: ``tools``, ``task``, ``session_id``, ``num_tasks``,
                ``splits``, ...

        Returns:
            One value for each env.
        """
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each env.

        Args:
            name: Its name.
            values: A list or tuple with a value for each env, or one value for all.

        Raises:
            InvalidRequestError: If their number is not that of the envs.
        """
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise InvalidRequestError(
                f"there are {len(values)} values of {name!r} for {self.num_envs} envs"
            )
        for slot, value in zip(self._slots, values, strict=True):
            setattr(slot, name, value)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each env, or return an attribute of each.

        Args:
            name: Its name: ``set_tasks``, ``render``, ...
            *args: What it is called with.
            **kwargs: What it is called with.

        Returns:
            One result for each env.
        """
        found = [slot.get(name) for slot in self._slots]
        return tuple(
            value(*args, **kwargs) if callable(value) else value for value in found
        )

    def render(self) -> tuple[Any, ...]:
        """Return each env's episode, as text or as a picture.

        Returns:
            One text or picture for each env; None for each without a render mode.
        """
        return self.call("render")

    def close_extras(self, **_: Any) -> None:
        """Delete all sessions, in bounded time; `close` calls it."""
        self._give_up(self._loop.busy)
        try:
            self._loop.run(_close_all(self._slots, self._owned))
        finally:
            self._finalizer()

    def __del__(self) -> None:
        """Do not `close`, as older versions of Gymnasium do: no I/O in a finaliser.

        The background deletes the sessions (docs/wire.md, point 14).
        """

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the envs."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """What those were seeded with."""
        return self.get_attr("np_random_seed")

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium made the envs, without the secrets among the arguments."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec = copy.copy(spec)
            spec.kwargs = without_secrets(spec.kwargs)
            if "autoreset_mode" in spec.kwargs:
                # The enum is no JSON, which a spec has to be.
                spec.kwargs["autoreset_mode"] = self._mode.value
        self._spec = spec


async def _close_all(
    slots: Sequence[VectorSlot], client: AsyncORSClient | None
) -> None:
    await asyncio.gather(*(slot.close() for slot in slots))
    if client is not None:
        await client.aclose()


def _let_go(loop: SlotLoop, client: AsyncORSClient | None) -> None:
    """Close what a vector env leaves behind, without a word to the server.

    The sessions are the background's to delete, once they are collected too.
    """
    loop.close()
    if client is not None:
        closing = client.aclose()
        # With its loop closed there is nothing it could wait for.
        with contextlib.suppress(StopIteration, RuntimeError):
            closing.send(None)
        closing.close()
