"""What the blocking and the async client have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar

from ors_gym._shown_text import even_half_made
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._session_core import (
    CALL_TIMEOUT,
    CLOSE_TIMEOUT,
    SETUP_TIMEOUT,
    SessionCore,
    task_request,
)
from ors_gym.client._settings import make_settings
from ors_gym.client.background import Pending, background
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect
from ors_gym.protocol._exchange import Limits, Operation
from ors_gym.protocol._redaction import hide
from ors_gym.protocol._retries import Retry
from ors_gym.protocol._server_state import (
    ClientSettings,
    Listing,
    Server,
    SessionState,
)
from ors_gym.types import JSONObject, Secrets, Split, TaskSpec, ToolSpec

T = TypeVar("T")
S = TypeVar("S", bound=SessionCore)
TransportT = TypeVar("TransportT")
"""An httpx transport, blocking or async."""
HttpxClientT = TypeVar("HttpxClientT")
"""An httpx client, blocking or async."""


class ClientCore(ABC, Generic[S, TransportT, HttpxClientT]):
    """A client without the way it runs operations."""

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
        transport: TransportT | None = None,
        client: HttpxClientT | None = None,
        share_api_key: bool = False,
        repeat_calls_after_429: bool = True,
        on_retry: Callable[[Retry], None] | None = None,
    ) -> None:
        api_key, headers = hide(api_key), hide(headers)
        settings = make_settings(
            base_url,
            api_key=api_key,
            headers=headers,
            timeout=timeout,
            trust_env=trust_env,
            allow_insecure=allow_insecure,
            limits=limits,
            share_api_key=share_api_key,
            repeat_calls_after_429=repeat_calls_after_429,
        )
        self._server = server = RemoteServer(settings)
        if on_retry is not None:
            server.retries.subscribe(on_retry)
        hooks = server.hooks
        hooks.register = _register_in_background
        hooks.forget = background().forget
        hooks.discard = _discard_in_background
        self._sessions: dict[str, S] = {}
        """Those of `create_episode` and of somebody else, by their ids."""
        self.catalog = Catalog(server)
        """Operations that ask what the server has, each question once."""
        self._brought = transport is not None or client is not None
        self._connect(transport, client)

    @abstractmethod
    def _connect(
        self, transport: TransportT | None, client: HttpxClientT | None
    ) -> None:
        """Choose the connections, without opening any."""

    @classmethod
    def from_settings(cls, settings: ClientSettings) -> Self:
        """Make a client with the settings of another one, also in another process.

        Args:
            settings: Those of the other client.

        Returns:
            A client with connections of its own.
        """
        return cls(
            settings.base_url,
            # The key is among the headers; ORS_API_KEY must not replace it.
            api_key="",
            headers=dict(settings.headers),
            timeout=settings.timeout,
            trust_env=settings.trust_env,
            allow_insecure=settings.may_send_secrets,
            limits=settings.limits,
            share_api_key=settings.share_api_key,
            repeat_calls_after_429=settings.repeat_calls_after_429,
        )

    @classmethod
    def from_client(cls, other: ClientCore[Any, Any, Any]) -> Self:
        """Make a client for the same server, such as a blocking one of an async one.

        Both share what is known of the server. The retries of the new client are told
        to the subscribers of the other one as well.

        Args:
            other: A blocking or an async client, also one of another event loop.

        Returns:
            A client with connections of its own.

        Raises:
            InvalidRequestError: If the other client has connections of the user's own.
        """
        client: Self = cls.from_settings(other.settings)
        client._server.known = other._server.known
        client._server.retries.subscribe(other._server.retries.tell)
        return client

    @even_half_made
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._server.base_url

    @property
    def settings(self) -> ClientSettings:
        """The client's settings, which can be pickled. They hold its key.

        Raises:
            InvalidRequestError: If the client has connections of the user's own.
        """
        if self._brought:
            raise InvalidRequestError(
                f"{self!r} was given an httpx transport or client, which cannot be "
                "used in another thread or process; await parallel_evaluate or "
                "run_episode_async with an AsyncORSClient that has it"
            )
        return self._server.settings

    @property
    def dialect(self) -> Dialect:
        """What the server speaks, once it was asked for anything."""
        return self._server.dialect

    def subscribe_to_retries(
        self, callback: Callable[[Retry], None]
    ) -> Callable[[], None]:
        """Have a function called before a request is repeated.

        Args:
            callback: The function. Several can be subscribed at once.

        Returns:
            A function that ends the subscription.
        """
        return self._server.retries.subscribe(callback)

    def subscribe_to_round_trips(
        self, callback: Callable[[float], None]
    ) -> Callable[[], None]:
        """Have a function called with the seconds that a request for a session id took.

        No code of an environment runs in that request, so it tells how busy the server
        is. Servers that hand out no session ids tell nothing.

        Args:
            callback: The function. Several can be subscribed at once.

        Returns:
            A function that ends the subscription.
        """
        return self._server.round_trips.subscribe(callback)

    def run_in_background(self, operation: Operation[T]) -> Pending[T]:
        """Run an operation on the background thread, over connections of its own.

        Args:
            operation: The operation, such as one that opens a session.

        Returns:
            What is to come of it: ``wait(timeout)``, ``result()``, ``await``.
        """
        return background().submit(self._server, operation)

    def session(
        self,
        env: str,
        task_spec: TaskSpec | None = None,
        *,
        split: str | None = None,
        index: int | None = None,
        secrets: Secrets | None = None,
        toolset: str | None = None,
        env_overrides: Mapping[str, str] | None = None,
        create_options: Mapping[str, Any] | None = None,
        session_options: Mapping[str, Any] | None = None,
        call_timeout: float = CALL_TIMEOUT,
        setup_timeout: float = SETUP_TIMEOUT,
    ) -> S:
        """Make a session; entering it opens it, leaving it deletes it.

        Args:
            env: The environment's name, in any case; ``Owner/Name`` at a gateway.
            task_spec: The task itself; or name it by split and index.
            split: The split that the task is in.
            index: The task's place in the split, from 0.
            secrets: Values for the environment, by name; a value may be a pair of the
                text and the domains that a gateway lets it out to.
            toolset: The name of a toolset of the server that the session gets too,
                such as ``claude-code``.
            env_overrides: Environment variables of the environment's container, which
                a gateway sets.
            create_options: Further fields for the body of /create.
            session_options: The body of /create_session.
            call_timeout: Seconds for a tool call.
            setup_timeout: Seconds for opening, set-up included.

        Returns:
            The session.

        Raises:
            InvalidRequestError: If the task is not named one way or the other.
        """
        return self._make_session(
            env,
            task_request(task_spec, split, index),
            secrets=secrets,
            toolset=toolset,
            env_overrides=env_overrides,
            create_options=create_options,
            session_options=session_options,
            call_timeout=call_timeout,
            setup_timeout=setup_timeout,
        )

    @abstractmethod
    def _make_session(
        self, environment: str, task: Mapping[str, Any], **options: Any
    ) -> S: ...

    # What the methods that take a session's id do, for both clients.

    def _list_environments(self) -> Operation[list[str]]:
        yield from operations.connect(self._server)
        return list(self._server.known.environments)

    def _create_session(self, env: str) -> Operation[str]:
        server = self._server.at(env)
        yield from operations.connect(server)
        return (yield from operations.create_session(server))

    def _create_episode(
        self,
        session_id: str,
        env: str,
        task: Mapping[str, Any],
        secrets: Secrets | None,
    ) -> Operation[JSONObject]:
        known = self._sessions.get(session_id)
        if known is not None and not known.is_attached:
            raise InvalidRequestError(
                f"this client has an episode of session {session_id} already; take a "
                "new id from create_session()"
            )
        session = self._make_session(env, task)
        state = yield from operations.start_episode(
            self._server, session_id, env, task, secrets=secrets, timeout=SETUP_TIMEOUT
        )
        session.adopt(state)
        self._sessions[session_id] = session
        return {"sid": session_id}

    def _find_session(self, session_id: str, env: str) -> Operation[S]:
        """Find a session by its id; one that somebody else opened is attached."""
        session = self._sessions.get(session_id)
        if session is None:
            _, name = yield from operations.locate(self._server, env)
            session = self._make_session(env, {})
            session.attach(session_id, name)
            # Two that looked at the same time share one, which asks once.
            session = self._sessions.setdefault(session_id, session)
        return session

    def _ping(self, session_id: str) -> Operation[bool]:
        session = self._sessions.get(session_id)
        server = self._server if session is None else session.server
        timeout = server.settings.timeout
        alive = yield from operations.ping(server, session_id, timeout=timeout)
        return alive is True

    def _delete_episode(self, session_id: str) -> Operation[JSONObject]:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            yield from session.close_operation()
        if session is None or session.is_attached:
            server = self._server if session is None else session.server
            yield from operations.delete_session(
                server, session_id, timeout=CLOSE_TIMEOUT
            )
        return {"sid": session_id}

    def _close_sessions(self) -> Operation[None]:
        for session in list(self._sessions.values()):
            yield from session.close_operation()
        self._sessions.clear()


class Catalog:
    """Operations that ask what a server has, each question once per client.

    Every env of a client shares the answers. `ORSClient.run` runs an operation.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: set[str] = set()

    def is_first(self, event: str) -> bool:
        """Return True the first time that an event is named with this client."""
        is_first = event not in self._seen
        self._seen.add(event)
        return is_first

    def resolve(self, env_name: str) -> Operation[str]:
        """Return the operation that finds the server's spelling of an environment."""
        return operations.resolve_environment(self._server, env_name)

    def tools(self, environment: str) -> Operation[list[ToolSpec]]:
        """Return the operation that lists the tools that every session has."""
        listing, environment = yield from self._listing(environment)
        if listing.tools is None:
            asked = operations.list_tools(self._server, environment)
            listing.tools, _ = yield from asked
        return listing.tools

    def splits(self, environment: str) -> Operation[list[Split]]:
        """Return the operation that lists the splits of an environment."""
        listing, environment = yield from self._listing(environment)
        if listing.splits is None:
            asked = operations.list_splits(self._server, environment)
            listing.splits = yield from asked
        return listing.splits

    def count_tasks(self, environment: str, split: str) -> Operation[int]:
        """Return the operation that counts the tasks of a split."""
        listing, environment = yield from self._listing(environment)
        counts = listing.counts
        if split not in counts:
            asked = operations.num_tasks(self._server, environment, split)
            counts[split] = yield from asked
        return counts[split]

    def task(self, environment: str, split: str, index: int) -> Operation[TaskSpec]:
        """Return the operation that asks for one task, each time anew."""
        return operations.get_task(self._server, environment, split, index)

    def _listing(self, environment: str) -> Operation[tuple[Listing, str]]:
        environment = yield from self.resolve(environment)
        return self._server.known.listing(environment), environment


def _register_in_background(server: Server, state: SessionState) -> None:
    if isinstance(server, RemoteServer):
        background().register(server, state)


def _discard_in_background(server: Server, session_id: str) -> None:
    if isinstance(server, RemoteServer):
        background().discard(server, session_id)
