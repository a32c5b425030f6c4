"""Policies: how they are called, and two that come with the package."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

import numpy as np

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout._episode import Episode
from ors_gym.spaces import ToolCallSpace
from ors_gym.types import ToolCall

Policy: TypeAlias = Callable[[Episode], Any]
"""Takes an episode; returns an action, a list of actions, a `Turn`, None, or an
awaitable of one of these."""

_SPACE: Final = "ors_gym.random_policy"
_PLAYER: Final = "ors_gym.reference_policy"


class PolicyCaller:
    """Calls policies on behalf of one episode at a time.

    An async policy runs on the event loop. A plain function runs in a thread, so that a
    blocking model call holds up no other episode. A call that is given up on, because
    its time is over, keeps its thread; the next episode gets another.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    async def call(self, policy: Policy, episode: Episode) -> Any:
        """Return the policy's answer, awaited if need be."""
        if is_async(policy):
            return await policy(episode)
        answer = await self.run(policy, episode)
        return await answer if inspect.isawaitable(answer) else answer

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a plain function in the thread, with the caller's context variables."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "ors_gym-policy")
        call = functools.partial(contextvars.copy_context().run, function, *arguments)
        work = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            return await work
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Let the thread end as soon as its function returns."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None


def is_async(policy: Any) -> bool:
    """Say whether calling a policy returns an awaitable without blocking."""
    call = getattr(policy, "__call__", None)  # noqa: B004 - its kind is asked for
    return inspect.iscoroutinefunction(policy) or inspect.iscoroutinefunction(call)


def choose_policy(
    policy: Policy | None, policy_factory: Callable[[], Policy] | None
) -> Callable[[], Policy]:
    """Return a function that gives the policy of each episode."""
    if (policy is None) == (policy_factory is None):
        raise InvalidRequestError("pass either a policy or a policy_factory")
    given = policy if policy is not None else policy_factory
    if not callable(given):
        raise InvalidRequestError(
            f"a policy is a function of an episode; {type(given).__name__} is none"
        )
    if policy_factory is not None:
        return policy_factory
    return lambda: policy  # type: ignore[return-value]  # it is not None


def name_policy(policy: Any) -> str:
    """Return the name of a policy (or of its factory) for records.

    It is the policy's own ``policy_name``, else the name of the function or class.
    """
    own = getattr(policy, "policy_name", None)
    if isinstance(own, str):
        return own
    while isinstance(policy, functools.partial):
        policy = policy.func
    name = getattr(policy, "__qualname__", None) or type(policy).__qualname__
    return str(name)


def random_policy(seed: int | None = None) -> Policy:
    """Return a policy that draws a tool and an input that the tool's schema allows.

    Args:
        seed: The same seed draws the same actions for the same episode of the same
            task, however many are played at once. The episode's own seed if None.

    Returns:
        The policy.

    Example:
        >>> tools = [{"name": "look", "description": "", "input_schema": None}]
        >>> random_policy(0)(Episode("maze", tools=tools))
        {'tool': 'look', 'input': {}}
    """

    def policy(episode: Episode) -> ToolCall:
        space: ToolCallSpace | None = episode.state.get(_SPACE)
        if space is None:
            generator = np.random.default_rng(_entropy(seed, episode))
            space = episode.state[_SPACE] = ToolCallSpace(episode.tools, seed=generator)
        return space.sample()

    policy.policy_name = (  # type: ignore[attr-defined]
        "random" if seed is None else f"random(seed={seed})"
    )
    return policy


def _entropy(seed: int | None, episode: Episode) -> list[int] | None:
    if seed is None:
        return None if episode.seed is None else [episode.seed]
    place = zlib.crc32(f"{episode.environment}/{episode.split}".encode())
    return [seed, place, episode.task_index + 1, episode.number]


def reference_policy(environment: str | None = None) -> Policy:
    """Return the scripted player of a bundled environment, as a policy.

    Args:
        environment: The environment's name; the episode's environment if None.

    Returns:
        The policy. It plays from the text alone and never sees the task.

    Raises:
        InvalidRequestError: If there is no player for the environment. Without
            ``environment``, the policy raises it at its first episode.

    Example:
        >>> question = "Ada has 2 coins, buys 3 more and finds another 4. How many are "
        >>> prompt = [{"type": "text", "text": question + "there now?"}]
        >>> reference_policy()(Episode("math", prompt=prompt))
        {'tool': 'submit', 'input': {'answer': '9'}}
    """
    if environment is not None:
        _find_player(environment)

    def policy(episode: Episode) -> ToolCall:
        if _PLAYER not in episode.state:
            make = _find_player(environment or episode.environment)
            episode.state[_PLAYER] = make()
        call: ToolCall = episode.state[_PLAYER](episode.text, episode.tools)
        return call

    policy.policy_name = "reference"  # type: ignore[attr-defined]
    return policy


def _find_player(environment: str) -> Callable[[], Any]:
    # Imported here: only the bundled environments have players.
    from ors_gym.server import REFERENCE_PLAYERS  # noqa: PLC0415

    player = REFERENCE_PLAYERS.get(environment.lower())
    if player is None:
        names = ", ".join(sorted(REFERENCE_PLAYERS))
        raise InvalidRequestError(
            f"there is no reference player for {environment!r}, only for {names}"
        )
    return player
