"""The async session: one episode on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ors_gym.client.drivers import AsyncExchange, run_async
from ors_gym.client.link import Link
from ors_gym.client.session_core import CLOSE_TIMEOUT, SessionCore
from ors_gym.protocol import operations
from ors_gym.types import Block, JSONObject, ToolOutput, ToolSpec

__all__ = ["AsyncSession"]


class AsyncSession(SessionCore):
    """One episode on a server. Made by `AsyncORSClient.session`.

    Args:
        link: How the server is reached.
        exchange: Does the exchanges.
        environment: The environment's name, in any case.
        task: The fields of /create that name the task.
        **options: As for `AsyncORSClient.session`.
    """

    def __init__(
        self,
        link: Link,
        exchange: AsyncExchange,
        environment: str,
        task: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(link, environment, task, **options)
        self._exchange = exchange

    async def open(self) -> Self:
        """As `Session.open`, awaitable."""
        self.adopt(await run_async(self.open_operation(), self._exchange))
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def get_prompt(self) -> list[Block]:
        """As `Session.get_prompt`, awaitable."""
        return await run_async(self.prompt_operation(), self._exchange)

    async def get_messages(self) -> list[JSONObject]:
        """As `Session.get_messages`, awaitable."""
        return await run_async(self.messages_operation(), self._exchange)

    async def list_tools(self) -> list[ToolSpec]:
        """As `Session.list_tools`, awaitable."""
        return await run_async(self.tools_operation(), self._exchange)

    async def call_tool(
        self, tool: str, input: Mapping[str, Any], *, timeout: float | None = None
    ) -> ToolOutput:
        """As `Session.call_tool`, awaitable."""
        return await run_async(
            self.call_operation(tool, input, timeout), self._exchange
        )

    async def resume_call(
        self, task_id: str, *, timeout: float | None = None
    ) -> ToolOutput:
        """As `Session.resume_call`, awaitable."""
        return await run_async(self.resume_operation(task_id, timeout), self._exchange)

    async def score_group(
        self,
        candidates: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
    ) -> list[JSONObject]:
        """As `Session.score_group`, awaitable."""
        return await run_async(
            self.score_operation(candidates, timeout), self._exchange
        )

    async def close(self, *, wait: bool = True) -> None:
        """As `Session.close`, awaitable."""
        state = self.release()
        if state is None:
            return
        confirmed = False
        try:
            if wait and self._set_up:
                operation = operations.delete_session(
                    self._link.wire, state.session_id, timeout=CLOSE_TIMEOUT
                )
                confirmed = await run_async(operation, self._exchange)
        finally:
            if not confirmed:
                self.delete_later(state)
