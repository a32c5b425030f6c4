"""Blocking functions over an async core."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from ors_gym.client.background import run_and_wait
from ors_gym.errors import InvalidRequestError


async def thread_name() -> str:
    return threading.current_thread().name


def test_every_call_has_the_same_loop_also_inside_of_another() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def inside() -> asyncio.AbstractEventLoop:
        return run_and_wait(loop())

    assert run_and_wait(loop()) is asyncio.run(inside())
    assert run_and_wait(thread_name()) == "ors_gym-run"


def test_what_the_coroutine_raises_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_and_wait(fail())


def test_work_that_would_wait_for_itself_is_refused() -> None:
    async def work() -> str:
        return run_and_wait(thread_name())

    with pytest.raises(InvalidRequestError, match="await the async function"):
        run_and_wait(work())


def test_ctrl_c_cancels_the_work_and_waits_for_its_cleanup() -> None:
    steps: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.append("cancelled")
            await asyncio.sleep(0.1)
            steps.append("cleaned up")
            raise

    with pytest.raises(KeyboardInterrupt):
        run_and_wait(work())
    assert steps == ["cancelled", "cleaned up"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    assert run_and_wait(thread_name()) == "ors_gym-run"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if run_and_wait(thread_name()) == "ors_gym-run" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
