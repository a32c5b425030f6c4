"""The blocking client and its session."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

from ors_gym.client._client_core import ClientCore
from ors_gym.client._connections import choose_connections
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._run_operation import Exchange, run_blocking
from ors_gym.client._session_core import SessionCore, task_request
from ors_gym.client.http._httpx_library import HttpxClient, HttpxTransport
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


class Session(SessionCore):
    """One episode on a server, as a context manager. `ORSClient.session` makes it.

    Example:
        >>> from ors_gym import ORSClient
        >>> from ors_gym.server import embedded_base_url
        >>> with (
        ...     ORSClient(embedded_base_url()) as client,
        ...     client.session("math", split="train", index=2) as session,
        ... ):
        ...     print(session.list_tools()[0]["name"])
        ...     session.call_tool("submit", {"answer": "12"})["finished"]
        submit
        True
    """

    def __init__(
        self,
        server: RemoteServer,
        exchange: Exchange,
        environment: str,
        task: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(server, environment, task, **options)
        self._exchange = exchange
        self._asking = threading.Lock()

    def open(self) -> Self:
        """Open the session on the server; ``with session:`` calls this.

        Returns:
            The session itself.

        Raises:
            SessionClosedError: If it was opened or closed before.
            ORSError: If it cannot be opened; nothing is left on the server then.
        """
        self.adopt(run_blocking(self.open_operation(), self._exchange, self.redact))
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_prompt(self) -> list[Block]:
        """Get the prompt; waits until the environment is set up.

        Returns:
            The blocks of the prompt.

        Raises:
            SetupFailedError: If the set-up raised.
        """
        return flatten_messages(self.get_messages())

    def get_messages(self) -> list[JSONObject]:
        """Get the prompt as a conversation.

        Returns:
            Turns with ``role`` and ``blocks``; on older servers, one user turn.
        """
        with self._asking:
            asking = self.messages_operation()
            return run_blocking(asking, self._exchange, self.redact)

    def list_tools(self) -> list[ToolSpec]:
        """List the tools of this session; ask after the prompt.

        Returns:
            The tools, the terminal one among them.
        """
        return run_blocking(self.tools_operation(), self._exchange, self.redact)

    def call_tool(
        self, tool: str, input: Mapping[str, Any], *, timeout: float | None = None
    ) -> ToolOutput:
        """Run a tool, exactly once whatever breaks.

        Args:
            tool: The tool's name.
            input: Its arguments, plain JSON.
            timeout: Seconds; the session's ``call_timeout`` if None.

        Returns:
            ``blocks``, ``metadata``, ``reward`` and ``finished``.

        Raises:
            ToolRejectedError: If the server refused the call.
            ToolFailedError: If the tool raised; the session is alive.
            AmbiguousCallError: If the tool may have run and its result is lost.
            CallTimeoutError: If the time passed.
            SessionLostError: If the server no longer has the session.
        """
        return run_blocking(
            self.call_operation(tool, input, timeout), self._exchange, self.redact
        )

    def resume_call(self, task_id: str, *, timeout: float | None = None) -> ToolOutput:
        """Wait longer for a call that timed out.

        Args:
            task_id: The ``task_id`` of the error.
            timeout: Seconds; the session's ``call_timeout`` if None.

        Returns:
            What the tool gave back.

        Raises:
            AmbiguousCallError: If the server no longer has the result.
        """
        return run_blocking(
            self.resume_operation(task_id, timeout), self._exchange, self.redact
        )

    def score_group(
        self, candidates: Sequence[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[JSONObject]:
        """Have a group of rollouts of this task scored together.

        Args:
            candidates: Objects with ``messages`` and, if wanted, ``metadata``.
            timeout: Seconds; the session's ``call_timeout`` if None.

        Returns:
            One object with ``reward`` and ``metadata`` for each candidate.

        Raises:
            InvalidRequestError: If the server cannot score groups.
        """
        return run_blocking(
            self.score_operation(candidates, timeout), self._exchange, self.redact
        )

    def close(self, *, wait: bool = True) -> None:
        """Delete the session on the server, in bounded time. Closing twice is fine.

        Args:
            wait: Whether to wait until the server confirms it. The background deletes
                the session otherwise, and if the server does not answer.
        """
        if wait:
            run_blocking(self.close_operation(), self._exchange, self.redact)
        else:
            self.discard()


T = TypeVar("T")


class ORSClient(ClientCore[Session, HttpxTransport, HttpxClient]):
    """A blocking client for one ORS server. Threads may share it.

    Values are plain JSON: ``client.list_tools("math")[0]["name"]``.

    Args:
        base_url: The server's address.
        api_key: Sent as ``X-API-Key``; the variable ``ORS_API_KEY`` if None.
        headers: Sent with every request, such as a gateway's authorization.
        timeout: Seconds for a request that is neither a call nor part of set-up.
        trust_env: Whether proxies of the environment are used, through httpx, for a
            server on another machine.
        allow_insecure: Whether a key or a secret may travel over plain http to
            another machine.
        limits: Bounds on what a server may send.
        transport: A transport of httpx2 or httpx to use in place of ours: correct, and
            slower.
        client: A client of httpx2 or httpx to use in place of ours. It is not closed
            here, and point 6 of docs/wire.md (no stale connection for a call) is kept
            by closing the connection of each call.
        share_api_key: Whether environments get the API key as their secrets ``api_key``
            and ``OPENREWARD_API_KEY``, which many of the platform's ask for. The
            environment's code can read it: share it only with those that you trust.
        repeat_calls_after_429: Whether a call that was answered 429 is sent again:
            point 5 of docs/wire.md takes 429 for "not run, come later". False for a
            gateway that may answer so after the tool ran: then such a call is
            ambiguous.
        on_retry: Told before a request is repeated.

    Raises:
        InvalidRequestError: If the address or a header cannot be right.
        InsecureTransportError: If a key would travel over plain http.

    Example:
        >>> from ors_gym.server import embedded_base_url
        >>> with ORSClient(embedded_base_url()) as client:
        ...     with client.session("guess", split="train", index=0) as session:
        ...         prompt = session.get_prompt()
        ...         result = session.call_tool("guess", {"number": 1})
        >>> result["finished"]
        False
    """

    def _connect(
        self, transport: HttpxTransport | None, client: HttpxClient | None
    ) -> None:
        self._connections = choose_connections(self._server, transport, client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, operation: Operation[T]) -> T:
        """Run an operation and return its value.

        Args:
            operation: The operation, such as one of `catalog`.
        """
        return run_blocking(
            operation, self._connections.exchange, self._server.settings.redact
        )

    def list_environments(self) -> list[str]:
        """List the environments of the server.

        Returns:
            Their names, as the server spells them.

        Raises:
            ProtocolError: If it is not an ORS server.
            ConnectionFailedError: If it cannot be reached.
        """
        return self.run(self._list_environments())

    def list_tools(self, env: str) -> list[ToolSpec]:
        """List the tools that every session of an environment has.

        Args:
            env: The environment's name, in any case.

        Returns:
            Objects with ``name``, ``description`` and ``input_schema``; the tool that
            ends an episode, where the server declares one, also has ``terminal``.

        Raises:
            UnknownEnvironmentError: If there is none of that name.
        """
        return self.run(operations.list_tools(self._server, env))[0]

    def list_splits(self, env: str) -> list[Split]:
        """List an environment's splits: ``name`` and ``type`` of each.

        Args:
            env: The environment's name, in any case.
        """
        return self.run(operations.list_splits(self._server, env))

    def list_tasks(self, env: str, split: str) -> list[TaskSpec]:
        """List all tasks of a split: for small sets; see `num_tasks`, `get_task`.

        Args:
            env: The environment's name, in any case.
            split: The split's name.

        Returns:
            The tasks. A task usually holds its answer.

        Raises:
            UnknownTaskError: If there is no such split.
        """
        return self.run(operations.list_tasks(self._server, env, split))

    def num_tasks(self, env: str, split: str) -> int:
        """Count the tasks of a split.

        Args:
            env: The environment's name, in any case.
            split: The split's name.

        Returns:
            The number of tasks.

        Raises:
            UnknownTaskError: If there is no such split.
        """
        return self.run(operations.num_tasks(self._server, env, split))

    def get_task(self, env: str, split: str, index: int) -> TaskSpec:
        """Get one task.

        Args:
            env: The environment's name, in any case.
            split: The split's name.
            index: The task's place in the split, from 0.

        Returns:
            The task. It usually holds its answer.

        Raises:
            UnknownTaskError: If there is no such split, or no such task in it.
        """
        return self.run(operations.get_task(self._server, env, split, index))

    def get_task_range(
        self, env: str, split: str, start: int | None = None, stop: int | None = None
    ) -> list[TaskSpec]:
        """Get the tasks of a range, as Python's slices count.

        Args:
            env: The environment's name, in any case.
            split: The split's name.
            start: The first index; from the start if None.
            stop: The index after the last one; to the end if None.

        Returns:
            The tasks.
        """
        operation = operations.get_task_range(self._server, env, split, start, stop)
        return self.run(operation)

    def list_required_secrets(self, env: str) -> list[str]:
        """List the names of the secrets that an environment of the platform wants.

        Only the platform's API knows them: ``ORSClient("https://api.openreward.ai")``.

        Args:
            env: The environment's name on the platform, ``Owner/Name``.

        Returns:
            The names, such as ``"OPENAI_API_KEY"``.

        Raises:
            InvalidRequestError: If the server is not the platform's API.
        """
        return self.run(operations.list_required_secrets(self._server, env))

    def get_task_difficulty(
        self, env: str, **filters: Unpack[RolloutFilters]
    ) -> list[JSONObject]:
        """Get how the rollouts that the platform has of each task were rewarded.

        Only the platform's API knows it: ``ORSClient("https://api.openreward.ai")``.

        Args:
            env: The environment's name on the platform, ``Owner/Name``, or
                ``Owner/Name/variant``.
            **filters: Which rollouts are meant, by the names of
                `ors_gym.types.RolloutFilters`; all if none is given.

        Returns:
            An object for each task: ``task_index``, ``avg_reward``, ``min_reward``,
            ``max_reward``, ``num_rollouts`` and more.

        Raises:
            InvalidRequestError: If the server is not the platform's API.
        """
        return self.run(operations.get_task_difficulty(self._server, env, filters))

    def create_session(self, env: str = "") -> str:
        """Get a session id, for `create_episode`.

        Args:
            env: The environment's name; only a gateway needs it.
        """
        return self.run(self._create_session(env))

    def create_episode(
        self,
        session_id: str,
        env: str,
        task_spec: TaskSpec | None = None,
        *,
        split: str | None = None,
        index: int | None = None,
        secrets: Secrets | None = None,
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
        secrets = hide(secrets)
        task = task_request(task_spec, split, index)
        return self.run(self._create_episode(session_id, env, task, secrets))

    def get_prompt(self, session_id: str, env: str) -> list[Block]:
        """Get the prompt of a session; waits until it is set up.

        Args:
            session_id: The session's id.
            env: The environment's name, in any case.

        Returns:
            The blocks of the prompt.
        """
        session = self.run(self._find_session(session_id, env))
        return session.get_prompt()

    def list_task_tools(self, session_id: str, env: str) -> list[ToolSpec]:
        """List the tools of a session; ask after the prompt.

        Args:
            session_id: The session's id.
            env: The environment's name, in any case.

        Returns:
            As `list_tools`.
        """
        session = self.run(self._find_session(session_id, env))
        return session.list_tools()

    def call_tool(
        self, session_id: str, env: str, tool: str, input: Mapping[str, Any]
    ) -> ToolOutput:
        """Run a tool of a session; see `Session.call_tool`.

        Args:
            session_id: The session's id.
            env: The environment's name, in any case.
            tool: The tool's name.
            input: Its arguments, plain JSON.

        Returns:
            ``blocks``, ``metadata``, ``reward`` and ``finished``.
        """
        session = self.run(self._find_session(session_id, env))
        return session.call_tool(tool, input)

    def ping(self, session_id: str) -> bool:
        """Return whether the server says that it has a session.

        Args:
            session_id: The session's id.
        """
        return self.run(self._ping(session_id))

    def delete_episode(self, session_id: str) -> JSONObject:
        """Delete a session and return ``{"sid": session_id}``; twice is fine.

        Args:
            session_id: The session's id.
        """
        return self.run(self._delete_episode(session_id))

    def close(self) -> None:
        """Delete the open episodes of `create_episode`, and close the connections.

        Sessions that `session` made are not closed here.
        Over httpx of yours it waits for the deletes that are still to be sent, 5 s at
        most, so that you can close that next.
        """
        self.run(self._close_sessions())
        self._connections.close()

    def _make_session(
        self, environment: str, task: Mapping[str, Any], **options: Any
    ) -> Session:
        return Session(
            self._server, self._connections.exchange, environment, task, **options
        )
