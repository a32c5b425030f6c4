"""Thousands of sessions that are to be deleted at once, now or later."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from unittest.mock import patch

from ors_gym.client.background import Background
from ors_gym.client.link import Link

SESSIONS = 3000


class CountingQueue(deque[Any]):
    """A queue that counts what is taken from it."""

    taken = 0

    def popleft(self) -> Any:
        self.taken += 1
        return super().popleft()


def test_each_is_looked_at_once_however_many_wait() -> None:
    deleted: list[str] = []
    most = 0

    async def delete(_: Background, doomed: Any) -> None:
        nonlocal most
        most = max(most, len(background._jobs))
        await asyncio.sleep(0)
        deleted.append(doomed.session_id)

    async def reap() -> None:
        background._reap()
        while background._jobs:
            await asyncio.wait(background._jobs)

    background = Background()
    queue = background._doomed = CountingQueue()
    link = Link("http://127.0.0.1:1")
    with (
        patch.object(Background, "_start"),
        patch.object(Background, "_delete", delete),
    ):
        for number in range(SESSIONS):
            background.delete(link, f"{number}", again=True)
        asyncio.run(reap())
        assert deleted == [f"{number}" for number in range(SESSIONS)]
        assert queue.taken == 2 * SESSIONS
        assert most == 64

        # The second deletes are due in a minute, in the order of the first.
        for doomed in background._later:
            doomed.due -= 60.0
        asyncio.run(reap())
    assert deleted[SESSIONS:] == deleted[:SESSIONS]
    assert queue.taken == 2 * SESSIONS
    assert not background._is_busy()


def test_later_deletes_are_made_when_the_process_ends() -> None:
    deleted: list[str] = []

    async def delete(_: Background, doomed: Any, *__: Any) -> None:
        deleted.append(doomed.session_id)

    async def end() -> None:
        background._reap()
        await background._delete_all(1.0)

    background = Background()
    link = Link("http://127.0.0.1:1")
    with (
        patch.object(Background, "_start"),
        patch.object(Background, "_delete", delete),
    ):
        background.delete(link, "one", again=True)
        asyncio.run(end())
    assert deleted == ["one", "one"]
