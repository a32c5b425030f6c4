"""Every way in which a policy can end, as policies of the environment ``Contract``.

Each is a name of this module, so that the command line finds it too. It ends in its way
at task 2 and answers every other task. ``async_`` before a name gives the async policy.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Episode, Policy

ENDING_TASK: Final = 2


class OwnError(BaseException):
    """What no `except Exception` catches, as pytest raises it."""


class Way(NamedTuple):
    """A way to end: what is done, and what comes of it."""

    end: Callable[[], Any]
    raises: type[BaseException] | None = None
    """What a function that plays one episode raises."""
    said: str = ""
    """A part of the error of its row in an evaluation."""

    @property
    def leaves(self) -> bool:
        """Whether it ends the whole run and not only its episode."""
        return self.raises is not None and not issubclass(self.raises, Exception)


def _raise(
    error: BaseException, said: str = "", raises: type[BaseException] | None = None
) -> Way:
    def end() -> None:
        raise error

    return Way(end, raises or type(error), said or type(error).__name__)


def _signal(error: BaseException) -> Way:
    said = f"the policy raised {type(error).__name__}"
    return _raise(error, said, InvalidRequestError)


def _cancel_oneself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    raise asyncio.CancelledError


WAYS: Final = {
    "none": Way(lambda: None),
    "action": Way(lambda: {"tool": "submit", "input": {"answer": "0"}}),
    "number": Way(
        lambda: 5, InvalidRequestError, "returned a number, which is no action"
    ),
    "function": Way(lambda: print, InvalidRequestError, "was it called"),
    "error": _raise(ZeroDivisionError("by the model"), "by the model"),
    "timeout": _raise(TimeoutError("the model"), "the model"),
    "exhausted": Way(lambda: next(iter(())), InvalidRequestError, "return None"),
    "exhausted_async": _signal(StopAsyncIteration()),
    "generator_exit": _signal(GeneratorExit()),
    "cancelled": _signal(asyncio.CancelledError()),
    "system_exit": _raise(SystemExit(3), "SystemExit: 3"),
    "interrupt": _raise(KeyboardInterrupt()),
    "own_error": _raise(OwnError("mine"), "OwnError: mine"),
}
ASYNC_WAYS: Final = {
    **WAYS,
    "cancels_itself": Way(_cancel_oneself, InvalidRequestError, "CancelledError"),
}


def plain(end: Callable[[], Any]) -> Policy:
    def policy(episode: Episode) -> Any:
        if episode.task_index == ENDING_TASK:
            return end()
        return right(episode)

    return policy


def awaited(end: Callable[[], Any]) -> Policy:
    async def policy(episode: Episode) -> Any:
        await asyncio.sleep(0)
        if episode.task_index == ENDING_TASK:
            return end()
        return right(episode)

    return policy


def right(episode: Episode) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}


_meeting: Final = threading.Barrier(2, timeout=5)
"""Where two episodes of one process wait for one another; after 5 s one goes on."""


NEIGHBOUR_TASK: Final = 3


def end_worker_in_company(episode: Episode) -> dict[str, Any]:
    """End the process at task 2, while task 3 is played in it if it can be.

    Task 3 waits for that end.
    """
    is_ending = episode.task_index == ENDING_TASK
    if not (is_ending or episode.task_index == NEIGHBOUR_TASK):
        return right(episode)
    try:
        _meeting.wait()
    except threading.BrokenBarrierError:
        pass
    else:
        threading.Event().wait(0 if is_ending else 30)
    if is_ending:
        os._exit(1)
    return right(episode)


def never(_: Episode) -> None:
    """Never return."""
    threading.Event().wait()


async def async_never(_: Episode) -> None:
    """Never return, and take no notice of being cancelled."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


def __getattr__(name: str) -> Policy:
    if name.startswith("async_") and name.removeprefix("async_") in ASYNC_WAYS:
        return awaited(ASYNC_WAYS[name.removeprefix("async_")].end)
    if name in WAYS:
        return plain(WAYS[name].end)
    raise AttributeError(name)
