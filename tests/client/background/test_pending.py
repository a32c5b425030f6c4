"""What is to come of work on another thread, whatever strikes whoever waits for it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from ors_gym.client.background import Pending
from ors_gym.client.background._thread import LoopThread
from tests.support.interrupts import Interrupt, Interrupted, count_places


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    thread = LoopThread("ors_gym-test")
    yield thread.start()
    thread.stop(10)


async def answer() -> int:
    # Long enough for whoever asks to wait for it already.
    await asyncio.sleep(0.01)
    return 42


def ask(loop: asyncio.AbstractEventLoop, pending: Pending[int]) -> int:
    pending.start(loop, answer())
    return pending.result(10)


# Struck before it told the loop, it never begins.
@pytest.mark.filterwarnings("ignore:coroutine 'answer' was never awaited")
def test_wherever_an_interrupt_strikes_the_thread_goes_on(loop) -> None:
    count = count_places(lambda: ask(loop, Pending()))
    for place in range(1, count + 1):
        pending: Pending[int] = Pending()
        with contextlib.suppress(Interrupted), Interrupt(place):
            ask(loop, pending)
        pending.cancel()
        assert pending.wait(10), f"place {place} of {count}: it has no outcome"
        assert ask(loop, Pending()) == 42, f"place {place} of {count}"


def test_it_is_awaited_on_another_loop(loop) -> None:
    async def work() -> int:
        pending: Pending[int] = Pending()
        pending.start(loop, answer())
        return await pending

    assert asyncio.run(work()) == 42


def test_what_the_work_raises_is_raised_by_each_who_waits(loop) -> None:
    async def fail() -> None:
        raise StopIteration(3)

    pending: Pending[None] = Pending()
    pending.start(loop, fail())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="StopIteration"):
            pending.result(10)


def test_whoever_is_cancelled_while_awaiting_cancels_the_work(loop) -> None:
    pending: Pending[bool] = Pending()

    async def wait() -> bool:
        return await pending

    async def work() -> None:
        pending.start(loop, asyncio.Event().wait())
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(work())
    assert pending.wait(10)
    with pytest.raises(asyncio.CancelledError):
        pending.result()


def test_time_is_bounded_and_the_work_goes_on(loop) -> None:
    let_go = threading.Event()

    async def work() -> int:
        await asyncio.to_thread(let_go.wait, 10)
        return 42

    pending: Pending[int] = Pending()
    pending.start(loop, work())
    with pytest.raises(TimeoutError):
        pending.result(0.01)
    let_go.set()
    assert pending.result(10) == 42


def test_each_callback_is_called_once_before_or_after_the_end(loop) -> None:
    ended: list[Pending[int]] = []
    pending: Pending[int] = Pending()
    pending.add_done_callback(ended.append)
    pending.start(loop, answer())
    pending.result(10)
    pending.add_done_callback(ended.append)
    # The first may still be called there.
    assert ask(loop, Pending()) == 42
    assert ended == [pending, pending]


def test_on_a_loop_that_is_closed_nothing_begins_and_nobody_waits() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    pending: Pending[int] = Pending()
    with pytest.raises(RuntimeError, match="closed"):
        pending.start(closed, answer())
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        pending.result()


def test_a_loop_that_ends_meanwhile_cancels_the_work() -> None:
    thread = LoopThread("ors_gym-test")
    pending: Pending[bool] = Pending()
    pending.start(thread.start(), asyncio.Event().wait())
    thread.stop(10)
    with pytest.raises(asyncio.CancelledError):
        pending.result(10)
