"""The sessions of both clients, as columns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import ors_gym
from tests.support.proxy.proxy import FaultProxy
from tests.system.faults.columns import RESULT, Column, Options, Shown, failed

__all__ = ["AsyncioSession", "BlockingSession"]

T = TypeVar("T")

_COUNT: Final = "count"
_PLENTY: Final = 20.0


def _given(output: Mapping[str, Any]) -> Shown:
    text = "\n\n".join(block["text"] for block in output["blocks"])
    return Shown(RESULT, text, output["reward"] or 0.0)


def _check_refused(call: Callable[[], Shown], proxy: FaultProxy) -> str:
    """Check that a session whose call has an unknown end takes no other."""
    sent = len(proxy.requests("/call"))
    again = call()
    if again.outcome == RESULT or len(proxy.requests("/call")) > sent:
        return f"another call went out on a session in doubt: {again}"
    return ""


def _check_resumed(resume: Callable[[str], Shown], shown: Shown) -> str:
    """Check that the result of a call that was cut off can still be had."""
    if not shown.task_id:
        return ""
    resumed = resume(shown.task_id)
    # Unless the server keeps no result, or is not the one that had it.
    if resumed.outcome in (RESULT, "session_lost"):
        return ""
    if resumed.outcome == "ambiguous_call" and "no longer has" in resumed.text:
        return ""
    return f"not resumed: {resumed}"


_IN_DOUBT: Final = ("ambiguous_call", "timeout", "session_lost", "protocol")
"""What a session does not go on after."""


class BlockingSession(Column):
    """`ORSClient` and its session."""

    name = "ORSClient"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._client = ors_gym.ORSClient(url, **options.for_client)
        self._session: ors_gym.Session | None = None

    @property
    def victim(self) -> str | None:
        return self._session.session_id if self._session is not None else None

    def open(self) -> Shown | None:
        try:
            session = self._client.session(
                "contract", split="train", index=0, **self.options.for_session()
            )
            self._session = session.open()
            session.get_prompt()
            session.list_tools()
        except ors_gym.ORSError as error:
            return failed(error)
        return None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._session is not None
        try:
            return _given(self._session.call_tool(tool, arguments))
        except ors_gym.ORSError as error:
            return failed(error)

    def _resume(self, task_id: str) -> Shown:
        assert self._session is not None
        try:
            return _given(self._session.resume_call(task_id, timeout=_PLENTY))
        except ors_gym.ORSError as error:
            return failed(error)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if not self.opened or shown.outcome not in _IN_DOUBT:
            return ""
        wrong = _check_refused(lambda: self.call(_COUNT, {}), proxy)
        return wrong or _check_resumed(self._resume, shown)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._client.close()


class AsyncioSession(Column):
    """`AsyncORSClient` and its session."""

    name = "AsyncORSClient"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._client = ors_gym.AsyncORSClient(url, **options.for_client)
        self._session: ors_gym.AsyncSession | None = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @property
    def victim(self) -> str | None:
        return self._session.session_id if self._session is not None else None

    def open(self) -> Shown | None:
        try:
            self._run(self._open())
        except ors_gym.ORSError as error:
            return failed(error)
        return None

    async def _open(self) -> None:
        session = self._client.session(
            "contract", split="train", index=0, **self.options.for_session()
        )
        self._session = await session.open()
        await session.get_prompt()
        await session.list_tools()

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._session is not None
        try:
            return _given(self._run(self._session.call_tool(tool, arguments)))
        except ors_gym.ORSError as error:
            return failed(error)

    def _resume(self, task_id: str) -> Shown:
        assert self._session is not None
        try:
            resumed = self._session.resume_call(task_id, timeout=_PLENTY)
            return _given(self._run(resumed))
        except ors_gym.ORSError as error:
            return failed(error)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if not self.opened or shown.outcome not in _IN_DOUBT:
            return ""
        wrong = _check_refused(lambda: self.call(_COUNT, {}), proxy)
        return wrong or _check_resumed(self._resume, shown)

    def close(self) -> None:
        self._run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self._client.aclose()
