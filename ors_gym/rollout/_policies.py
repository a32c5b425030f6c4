"""Policies: how they are called, and two that come with the package."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import queue
import threading
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import numpy as np

from ors_gym.client.background import Completion
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout._episode import Episode
from ors_gym.spaces import ToolCallSpace
from ors_gym.types import ToolCall

T = TypeVar("T")

Policy: TypeAlias = Callable[[Episode], Any]
"""Takes an episode; returns an action, a list of actions, a `Turn`, `Stop` or None, or
an awaitable of one of these. If it has a method ``end_episode(episode)``, plain or
async, that is called once the episode is over, however it ended."""

_SPACE: Final = "ors_gym.random_policy"
_PLAYER: Final = "ors_gym.reference_policy"
_GIVING_UP_SECONDS: Final = 5.0
"""How long a policy that is cancelled may clean up before it is left alone."""
_EXHAUSTED: Final = (StopIteration, StopAsyncIteration)
_SIGNALS: Final = (*_EXHAUSTED, GeneratorExit, asyncio.CancelledError)


class PolicyCaller:
    """Calls policies on behalf of one episode at a time.

    An async policy runs on the event loop, in a task of its own. A plain function runs
    in a thread, so that a blocking model call holds up no other episode. If time runs
    out during a call, its thread is left to finish it, and the next call gets a new
    thread.
    """

    def __init__(self) -> None:
        self._thread: _PolicyThread | None = None
        self._policy: Policy | None = None
        """The policy that was called last."""
        self._is_async = False
        self.begin_episode()

    def begin_episode(self) -> None:
        """Give the calls to come the caller's context variables, as they are now."""
        self._context = contextvars.copy_context()

    def call(self, policy: Policy, episode: Episode) -> Coroutine[Any, Any, Any]:
        """Give the policy's answer, awaited if need be; see `raise_of_policy`."""
        if policy is not self._policy:
            self._policy, self._is_async = policy, is_async(policy)
        if self._is_async:
            return self._await(policy(episode))
        return self._call_plain(policy, episode)

    async def _call_plain(self, policy: Policy, episode: Episode) -> Any:
        if self._thread is None:
            self._thread = _PolicyThread()
        try:
            completion = await self._thread.run(self._context.run, policy, episode)
        except asyncio.CancelledError:
            self.close()
            # The thread that is given up may be in it still, and nobody else enters it.
            self._context = self._context.copy()
            raise
        answer = _answer_of(completion)
        return await self._await(answer) if inspect.isawaitable(answer) else answer

    async def end(self, policy: Policy, episode: Episode) -> None:
        """Tell a policy that wants to know that its episode is over."""
        end = find_end(policy)
        if end is not None:
            await self.call(end, episode)

    async def _await(self, answer: Awaitable[Any]) -> Any:
        """Wait for an answer in a task, so that a policy may cancel no task of ours."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Completion[Any]] = loop.create_future()

        def note_end(_: object) -> None:
            """Settle it where the task was cancelled before it began."""
            if inspect.iscoroutine(answer):
                answer.close()
            _settle(ended, Completion(None, asyncio.CancelledError()))

        async def tell() -> None:
            try:
                completion = Completion(await answer)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                completion = Completion(None, error)
            # Another turn of the event loop for it would be half of what this costs.
            own: Any = asyncio.current_task()
            own.remove_done_callback(note_end)
            _settle(ended, completion)

        task = loop.create_task(tell(), context=self._context)
        if not ended.done():
            # An eager task may be over by now.
            task.add_done_callback(note_end)
        try:
            completion = await ended
        finally:
            if not ended.done() or ended.cancelled():
                task.cancel()
                await asyncio.wait([task], timeout=_GIVING_UP_SECONDS)
        return _answer_of(completion)

    def close(self) -> None:
        """Let the thread end as soon as its function returns."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None


class _PolicyThread:
    """A thread that calls one function after another, for one event loop.

    It is no executor's: the end of the process would wait for a policy that never
    returns.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="ors_gym-policy").start()

    def run(
        self, function: Callable[..., Any], *arguments: Any
    ) -> Awaitable[Completion[Any]]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Completion[Any]] = loop.create_future()

        def call() -> None:
            try:
                completion = Completion(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                completion = Completion(None, error)
            # The loop is closed where nobody waits for the answer any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, ended, completion)

        self._calls.put(call)
        return ended

    def stop(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _settle(ended: asyncio.Future[T], value: T) -> None:
    if not ended.done():
        ended.set_result(value)


def _answer_of(completion: Completion[Any]) -> Any:
    if completion.error is not None:
        raise_of_policy(completion.error)
    return completion.value


def raise_of_policy(error: BaseException) -> NoReturn:
    """Raise a policy's error so that no caller takes it for a signal of its own.

    Raises:
        InvalidRequestError: For what steers generators and tasks, such as StopIteration
            and CancelledError: the policy's own, and no signal to anybody here.
        BaseException: Anything else, as it is.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, _EXHAUSTED):
        error = error.__cause__  # what a coroutine makes of it (PEP 479)
    if isinstance(error, _SIGNALS):
        name = type(error).__name__
        hint = ""
        if isinstance(error, _EXHAUSTED):
            hint = ". An iterator of its own is exhausted: return None to give up, as "
            hint += "next(actions, None) does"
        raise InvalidRequestError(f"the policy raised {name}{hint}") from error
    raise error


def is_async(policy: Any) -> bool:
    """Say whether calling a policy returns an awaitable without blocking."""
    own = getattr(policy, "is_async", None)
    if isinstance(own, bool):
        return own
    call = getattr(policy, "__call__", None)  # noqa: B004 - its kind is asked for
    return inspect.iscoroutinefunction(policy) or inspect.iscoroutinefunction(call)


def find_end(policy: Policy) -> Callable[[Episode], Any] | None:
    """Return what a policy wants called at the end of an episode."""
    end: Callable[[Episode], Any] | None = getattr(policy, "end_episode", None)
    return end


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

    Raises:
        InvalidRequestError: If the seed is negative.

    Example:
        >>> tools = [{"name": "look", "description": "", "input_schema": None}]
        >>> random_policy(0)(Episode("maze", tools=tools))
        {'tool': 'look', 'input': {}}
    """
    check_seed(seed)

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


def check_seed(seed: int | None) -> None:
    """Refuse a negative seed, as the reset of an env does: nothing can be drawn."""
    # Other wrong types are refused where the seed is used.
    if isinstance(seed, int | np.integer) and seed < 0:
        raise InvalidRequestError(f"the seed must be at least 0, not {seed}")


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
