"""The async client and its session."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

from ors_gym.client._client_core import ClientCore
from ors_gym.client._connections import choose_async_connections
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._run_operation import AsyncExchange, run_async
from ors_gym.client._session_core import SessionCore, task_request
from ors_gym.client.http._httpx_library import AsyncHttpxClient, AsyncHttpxTransport
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation
from ors_gym.protocol._redaction import hide
from ors_gym.protocol._reply_json import flatten_messages
from ors_gym.types import (
    Block,
    JSONObject,
    RolloutFilters,
    Secrets,
    Split,
    TaskSpec,
    ToolOutput,
    ToolSpec,
)


class AsyncSession(SessionCore):
    """One episode on a server, as an async context manager.

    `AsyncORSClient.session` makes it.

    Example:
        >>> import asyncio
        >>> from ors_gym import AsyncORSClient
        >>> from ors_gym.server import embedded_base_url
        >>> async def play():
        ...     async with (
        ...         AsyncORSClient(embedded_base_url()) as client,
        ...         client.session("math", split="train", index=2) as session,
        ...     ):
        ...         return await session.call_tool("submit", {"answer": "12"})
        >>> asyncio.run(play())["reward"]
        1.0
    """

    def __init__(
        self,
        server: RemoteServer,
        exchange: AsyncExchange,
        environment: str,
        task: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(server, environment, task, **options)
        self._exchange = exchange
        self._asking = asyncio.Lock()

    async def open(self) -> Self:
        """As `Session.open`, awaitable."""
        self.adopt(await run_async(self.open_operation(), self._exchange, self.redact))
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get_prompt(self) -> list[Block]:
        """As `Session.get_prompt`, awaitable."""
        return flatten_messages(await self.get_messages())

    async def get_messages(self) -> list[JSONObject]:
        """As `Session.get_messages`, awaitable."""
        async with self._asking:
            asking = self.messages_operation()
            return await run_async(asking, self._exchange, self.redact)

    async def list_tools(self) -> list[ToolSpec]:
        """As `Session.list_tools`, awaitable."""
        return await run_async(self.tools_operation(), self._exchange, self.redact)

    async def call_tool(
        self, tool: str, input: Mapping[str, Any], *, timeout: float | None = None
    ) -> ToolOutput:
        """As `Session.call_tool`, awaitable."""
        return await run_async(
            self.call_operation(tool, input, timeout), self._exchange, self.redact
        )

    async def resume_call(
        self, task_id: str, *, timeout: float | None = None
    ) -> ToolOutput:
        """As `Session.resume_call`, awaitable."""
        return await run_async(
            self.resume_operation(task_id, timeout), self._exchange, self.redact
        )

    async def score_group(
        self, candidates: Sequence[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[JSONObject]:
        """As `Session.score_group`, awaitable."""
        return await run_async(
            self.score_operation(candidates, timeout), self._exchange, self.redact
        )

    async def close(self, *, wait: bool = True) -> None:
        """As `Session.close`, awaitable."""
        if wait:
            await run_async(self.close_operation(), self._exchange, self.redact)
        else:
            self.discard()


T = TypeVar("T")


class AsyncORSClient(ClientCore[AsyncSession, AsyncHttpxTransport, AsyncHttpxClient]):
    """An async client for one ORS server, for many sessions at once on one loop.

    Its arguments are those of `ORSClient`, with an async ``transport`` or ``client`` of
    httpx. Values are plain JSON: ``(await client.list_tools("math"))[0]["name"]``.

    Example:
        >>> import asyncio
        >>> from ors_gym.server import embedded_base_url
        >>> async def play(base_url):
        ...     async with AsyncORSClient(base_url) as client:
        ...         task = {"split": "train", "index": 0}
        ...         async with client.session("guess", **task) as session:
        ...             await session.get_prompt()
        ...             return await session.call_tool("guess", {"number": 1})
        >>> asyncio.run(play(embedded_base_url()))["finished"]
        False
    """

    def _connect(
        self,
        transport: AsyncHttpxTransport | None,
        client: AsyncHttpxClient | None,
    ) -> None:
        self._connections = choose_async_connections(self._server, transport, client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def run(self, operation: Operation[T]) -> T:
        """As `ORSClient.run`, awaitable."""
        return await run_async(
            operation, self._connections.exchange, self._server.settings.redact
        )

    async def list_environments(self) -> list[str]:
        """As `ORSClient.list_environments`, awaitable."""
        return await self.run(self._list_environments())

    async def list_tools(self, env: str) -> list[ToolSpec]:
        """As `ORSClient.list_tools`, awaitable."""
        tools, _ = await self.run(operations.list_tools(self._server, env))
        return tools

    async def list_splits(self, env: str) -> list[Split]:
        """As `ORSClient.list_splits`, awaitable."""
        return await self.run(operations.list_splits(self._server, env))

    async def list_tasks(self, env: str, split: str) -> list[TaskSpec]:
        """As `ORSClient.list_tasks`, awaitable."""
        return await self.run(operations.list_tasks(self._server, env, split))

    async def num_tasks(self, env: str, split: str) -> int:
        """As `ORSClient.num_tasks`, awaitable."""
        return await self.run(operations.num_tasks(self._server, env, split))

    async def get_task(self, env: str, split: str, index: int) -> TaskSpec:
        """As `ORSClient.get_task`, awaitable."""
        return await self.run(operations.get_task(self._server, env, split, index))

    async def get_task_range(
        self, env: str, split: str, start: int | None = None, stop: int | None = None
    ) -> list[TaskSpec]:
        """As `ORSClient.get_task_range`, awaitable."""
        operation = operations.get_task_range(self._server, env, split, start, stop)
        return await self.run(operation)

    async def list_required_secrets(self, env: str) -> list[str]:
        """As `ORSClient.list_required_secrets`, awaitable."""
        return await self.run(operations.list_required_secrets(self._server, env))

    async def get_task_difficulty(
        self, env: str, **filters: Unpack[RolloutFilters]
    ) -> list[JSONObject]:
        """As `ORSClient.get_task_difficulty`, awaitable."""
        asked = operations.get_task_difficulty(self._server, env, filters)
        return await self.run(asked)

    async def create_session(self, env: str = "") -> str:
        """As `ORSClient.create_session`, awaitable."""
        return await self.run(self._create_session(env))

    async def create_episode(
        self,
        session_id: str,
        env: str,
        task_spec: TaskSpec | None = None,
        *,
        split: str | None = None,
        index: int | None = None,
        secrets: Secrets | None = None,
    ) -> JSONObject:
        """As `ORSClient.create_episode`, awaitable."""
        secrets = hide(secrets)
        task = task_request(task_spec, split, index)
        return await self.run(self._create_episode(session_id, env, task, secrets))

    async def get_prompt(self, session_id: str, env: str) -> list[Block]:
        """As `ORSClient.get_prompt`, awaitable."""
        session = await self.run(self._find_session(session_id, env))
        return await session.get_prompt()

    async def list_task_tools(self, session_id: str, env: str) -> list[ToolSpec]:
        """As `ORSClient.list_task_tools`, awaitable."""
        session = await self.run(self._find_session(session_id, env))
        return await session.list_tools()

    async def call_tool(
        self, session_id: str, env: str, tool: str, input: Mapping[str, Any]
    ) -> ToolOutput:
        """As `ORSClient.call_tool`, awaitable."""
        session = await self.run(self._find_session(session_id, env))
        return await session.call_tool(tool, input)

    async def ping(self, session_id: str) -> bool:
        """As `ORSClient.ping`, awaitable."""
        return await self.run(self._ping(session_id))

    async def delete_episode(self, session_id: str) -> JSONObject:
        """As `ORSClient.delete_episode`, awaitable."""
        return await self.run(self._delete_episode(session_id))

    async def aclose(self) -> None:
        """As `ORSClient.close`, awaitable."""
        await self.run(self._close_sessions())
        await self._connections.aclose()

    def _make_session(
        self, environment: str, task: Mapping[str, Any], **options: Any
    ) -> AsyncSession:
        return AsyncSession(
            self._server, self._connections.exchange, environment, task, **options
        )
