"""Threads with an event loop, and blocking functions that wait for one."""

import asyncio
import errno
import gc
import os
import signal
import threading
from typing import Any

import pytest

from ors_gym.client.background import (
    _thread,
    delete_sessions_on_sigterm,
    run_and_wait,
)
from ors_gym.client.background._thread import LoopThread
from ors_gym.errors import ConnectionFailedError, InvalidRequestError


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_every_call_has_the_same_loop_also_inside_of_another() -> None:
    async def inside() -> asyncio.AbstractEventLoop:
        return run_and_wait(running_loop())

    assert run_and_wait(running_loop()) is asyncio.run(inside())


def test_what_the_coroutine_raises_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_and_wait(fail())


def test_work_that_would_wait_for_itself_is_refused() -> None:
    async def work() -> object:
        return run_and_wait(running_loop())

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


def test_a_signal_that_does_not_end_the_wait_is_seen_all_the_same() -> None:
    async def work() -> None:
        # The waiting thread notices it as little as one that strikes just before it
        # begins to wait.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run_and_wait(work())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_stop_the_loop_is_raised_here_alone(error: BaseException) -> None:
    before = run_and_wait(running_loop())

    async def leave() -> None:
        raise error

    with pytest.raises(type(error)):
        run_and_wait(leave())
    assert run_and_wait(running_loop()) is before


def test_a_task_that_is_left_on_the_loop_does_not_stop_it(caplog) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def work() -> asyncio.AbstractEventLoop:
        asyncio.create_task(leave())  # noqa: RUF006 - nobody asks what became of it
        return await running_loop()

    assert run_and_wait(work()) is run_and_wait(running_loop())
    gc.collect()
    # asyncio says so where nobody asks.
    assert "exception was never retrieved" in caplog.text


def test_a_loop_that_is_blocked_is_left_for_another(monkeypatch) -> None:
    monkeypatch.setattr(_thread, "_CLEANUP_SECONDS", 0.05)
    free = threading.Event()

    async def block() -> asyncio.AbstractEventLoop:
        os.kill(os.getpid(), signal.SIGINT)
        free.wait(60)
        return await running_loop()

    blocked = run_and_wait(running_loop())
    try:
        with pytest.raises(KeyboardInterrupt):
            run_and_wait(block())
        assert run_and_wait(running_loop()) is not blocked
    finally:
        free.set()
        blocked.call_soon_threadsafe(blocked.stop)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_thread_that_cannot_have_a_loop_says_so(monkeypatch) -> None:
    def refuse() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    thread = LoopThread("ors_gym-test")
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", refuse)
        with pytest.raises(ConnectionFailedError, match="Too many open files"):
            thread.start()
    assert thread.start().is_running()
    thread.stop(5.0)


@pytest.mark.parametrize("timeout", [None, 0, "5"])
def test_deletes_at_sigterm_need_a_time(timeout: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InvalidRequestError, match="timeout"):
        delete_sessions_on_sigterm(timeout)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_child_has_a_thread_of_its_own() -> None:
    parents = run_and_wait(running_loop())
    thread = LoopThread("ors_gym-test")
    loop = thread.start()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert thread.loop is None
            ran = threading.Event()
            thread.start().call_soon_threadsafe(ran.set)
            assert ran.wait(10)
            assert run_and_wait(running_loop()) is not parents
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert thread.start() is loop
    thread.stop(10)
    assert thread.loop is None
    assert loop.is_closed()


def test_what_a_library_leaves_on_the_loop_is_cancelled_at_its_end() -> None:
    ends: list[str] = []
    left: set[asyncio.Task[None]] = set()
    thread = LoopThread("ors_gym-test")

    async def leave() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("cancelled")

    async def begin() -> None:
        left.add(asyncio.create_task(leave()))
        await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(begin(), thread.start()).result(10)
    thread.stop(10)
    assert ends == ["cancelled"]
