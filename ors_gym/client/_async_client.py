"""The async client and its session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from ors_gym.client._client_core import ClientCore
from ors_gym.client._connections import choose_async_connections
from ors_gym.client._run_operation import AsyncExchange, run_async
from ors_gym.client._server import RemoteServer
from ors_gym.client._session_core import (
    CLOSE_TIMEOUT,
    SETUP_TIMEOUT,
    SessionCore,
    task_request,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Limits, Operation
from ors_gym.protocol._retries import Retry
from ors_gym.types import Block, JSONObject, Split, TaskSpec, ToolOutput, ToolSpec

__all__ = ["AsyncORSClient", "AsyncSession"]


class AsyncSession(SessionCore):
    """One episode on a server, as an async context manager.

    `AsyncORSClient.session` makes it.
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
        if wait:
            await run_async(self.close_operation(), self._exchange)
        else:
            self.discard()


T = TypeVar("T")


class AsyncORSClient(ClientCore[AsyncSession]):
    """An async client for one ORS server, for many sessions at once on one loop.

    Values are plain JSON: ``client.list_tools("math")[0]["name"]``.

    Args:
        base_url: The server's address.
        api_key: Sent as ``X-API-Key``; the variable ``ORS_API_KEY`` if None.
        headers: Sent with every request, such as a gateway's authorization.
        timeout: Seconds for a request that is neither a call nor part of set-up.
        trust_env: Whether proxies of the environment are used, through httpx.
        allow_insecure: Whether a key or a secret may travel over plain http to
            another machine.
        limits: Bounds on what a server may send.
        transport: An httpx transport to use in place of ours: correct, and slower.
        client: An httpx client to use in place of ours. It is not closed here, and
            point 6 of docs/wire.md (no stale connection for a call) is kept by
            closing the connection of each call.
        repeat_calls_after_429: Whether a call that was answered 429 is sent again:
            point 5 of docs/wire.md takes 429 for "not run, come later". False for a
            gateway that may answer so after the tool ran: then such a call is
            ambiguous.
        on_retry: Told before a request is repeated.

    Raises:
        InvalidRequestError: If the address or a header cannot be right.
        InsecureTransportError: If a key would travel over plain http.

    Example:
        >>> import asyncio
        >>> from ors_gym.server import serve
        >>> async def play(base_url):
        ...     async with AsyncORSClient(base_url) as client:
        ...         task = {"split": "train", "index": 0}
        ...         async with client.session("guess", **task) as session:
        ...             await session.get_prompt()
        ...             return await session.call_tool("guess", {"number": 1})
        >>> with serve() as base_url:
        ...     asyncio.run(play(base_url))["finished"]
        False
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        trust_env: bool = False,
        allow_insecure: bool = False,
        limits: Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        client: httpx.AsyncClient | None = None,
        repeat_calls_after_429: bool = True,
        on_retry: Callable[[Retry], None] | None = None,
    ) -> None:
        super().__init__(
            base_url,
            api_key=api_key,
            headers=headers,
            timeout=timeout,
            trust_env=trust_env,
            allow_insecure=allow_insecure,
            limits=limits,
            repeat_calls_after_429=repeat_calls_after_429,
            on_retry=on_retry,
        )
        self._connections = choose_async_connections(self._server, transport, client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation of the protocol.

        Args:
            operation: The operation, from `ors_gym.protocol._operations`.

        Returns:
            What it returns.
        """
        return await run_async(operation, self._connections.exchange)

    async def list_environments(self) -> list[str]:
        """As `ORSClient.list_environments`, awaitable."""
        await self.run(operations.connect(self._server))
        return list(self._server.known.environments)

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
        self,
        env: str,
        split: str,
        start: int | None = None,
        stop: int | None = None,
    ) -> list[TaskSpec]:
        """As `ORSClient.get_task_range`, awaitable."""
        operation = operations.get_task_range(self._server, env, split, start, stop)
        return await self.run(operation)

    async def create_session(self) -> str:
        """As `ORSClient.create_session`, awaitable."""
        await self.run(operations.connect(self._server))
        return await self.run(operations.create_session(self._server))

    async def create_episode(
        self,
        session_id: str,
        env: str,
        task_spec: TaskSpec | None = None,
        *,
        split: str | None = None,
        index: int | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> JSONObject:
        """Start an episode on a session id.

        Args:
            session_id: The id, used only once.
            env: The environment's name, in any case.
            task_spec: The task itself; or name it by split and index.
            split: The split that the task is in.
            index: The task's place in the split, from 0.
            secrets: Values for the environment, by name.

        Returns:
            ``{"sid": session_id}``.

        Raises:
            ConnectionFailedError: If nobody knows whether it was started; the id is
                of no use then.
        """
        task = task_request(task_spec, split, index)
        session = self._make_session(env, task)
        operation = operations.start_episode(
            self._server,
            session_id,
            env,
            task,
            secrets=secrets,
            timeout=SETUP_TIMEOUT,
        )
        session.adopt(await self.run(operation))
        self._sessions[session_id] = session
        return {"sid": session_id}

    async def get_prompt(self, session_id: str, env: str) -> list[Block]:
        """As `ORSClient.get_prompt`, awaitable."""
        return await (await self._session(session_id, env)).get_prompt()

    async def list_task_tools(self, session_id: str, env: str) -> list[ToolSpec]:
        """As `ORSClient.list_task_tools`, awaitable."""
        return await (await self._session(session_id, env)).list_tools()

    async def call_tool(
        self, session_id: str, env: str, tool: str, input: Mapping[str, Any]
    ) -> ToolOutput:
        """As `ORSClient.call_tool`, awaitable."""
        return await (await self._session(session_id, env)).call_tool(tool, input)

    async def ping(self, session_id: str) -> bool:
        """As `ORSClient.ping`, awaitable."""
        operation = operations.ping(
            self._server, session_id, timeout=self._server.settings.timeout
        )
        return await self.run(operation) is True

    async def delete_episode(self, session_id: str) -> JSONObject:
        """Delete a session. Deleting twice is fine.

        Args:
            session_id: The session's id.

        Returns:
            ``{"sid": session_id}``.
        """
        session = self._sessions.pop(session_id, None)
        if session is not None:
            await session.close()
        else:
            operation = operations.delete_session(
                self._server, session_id, timeout=CLOSE_TIMEOUT
            )
            await self.run(operation)
        return {"sid": session_id}

    async def aclose(self) -> None:
        """As `ORSClient.close`, awaitable."""
        for session in list(self._sessions.values()):
            await session.close()
        self._sessions.clear()
        await self._connections.aclose()

    async def _session(self, session_id: str, env: str) -> AsyncSession:
        """Find a session by its id; one of somebody else's is taken as it is."""
        session = self._sessions.get(session_id)
        if session is None:
            name = await self.run(operations.resolve_environment(self._server, env))
            session = self._make_session(name, {})
            session.attach(session_id, name)
            self._sessions[session_id] = session
        return session

    def _make_session(
        self, environment: str, task: Mapping[str, Any], **options: Any
    ) -> AsyncSession:
        return AsyncSession(
            self._server, self._connections.exchange, environment, task, **options
        )
