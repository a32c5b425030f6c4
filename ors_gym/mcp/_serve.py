"""Environments for agents: over the standard streams of a process, or over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from anyio.from_thread import start_blocking_portal
from mcp.server.runner import serve_dual_era_loop
from mcp.server.stdio import stdio_server
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from ors_gym.errors import InvalidRequestError
from ors_gym.mcp._episode_server import EpisodeServer
from ors_gym.mcp._http import run_episode_server, run_http_server
from ors_gym.mcp._rows import AgentRun, RunOptions
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._clients import connect, split_client_arguments
from ors_gym.rollout._episode_rules import take_rules
from ors_gym.rollout._output import Success
from ors_gym.server._web import LOOPBACK, describe_address, listen, refuse, reply_json

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_PATH: Final = "/mcp"
_SESSION: Final = b"mcp-session-id"
_VERSION: Final = b"mcp-protocol-version"


@contextlib.contextmanager
@takes_secrets
def serve(
    env_name: str,
    base_url: str | None = None,
    *,
    task: int | Mapping[str, Any] | None = None,
    split: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    output: str | os.PathLike[str] | None = None,
    policy_name: str = "mcp",
    success: Success = None,
    max_sessions: int = 256,
    idle_timeout: float = 1800.0,
    **arguments: Any,
) -> Iterator[str]:
    """Serve an environment to agents over HTTP, for as long as the block runs.

    An agent that connects to the address plays an episode of its own. All agents at an
    address with a name, such as ``.../mcp/anna``, share one episode. MCP 2026-07-28 has
    no sessions: at the plain address, its agents are asked to speak an earlier version.
    At an address with a name they need not.

    Args:
        env_name: The environment's name on the server.
        base_url: The server's address; else ``ORS_BASE_URL``, else the embedded one.
        task: The task that every agent plays: its index in the split, or the task
            itself. If None, each plays the next of the split, first those that the
            output file has no outcome of.
        split: The split of an index; ``train`` if None and there is one, else the
            only one.
        host: The address to listen on.
        port: The port, or 0 for any free one.
        token: What an agent has to send, as ``Authorization: Bearer TOKEN``. Required
            unless ``host`` is an address of the loopback interface.
        output: The path of a JSON-lines file with a row for each episode, as of
            `evaluate`. The agents should not be able to read it.
        policy_name: The name of the agents in that file.
        success: As for `evaluate`.
        max_sessions: The most episodes at once.
        idle_timeout: Seconds after which an agent that asks for nothing is taken to
            have left.
        **arguments: The other arguments of `LiveEpisode`, and ``api_key``, ``headers``
            and ``client_options`` of the client.

    Yields:
        The address for an MCP client that speaks Streamable HTTP.

    Raises:
        ORSError: If there is no such server, environment or task, if an argument cannot
            be right, or if the output file is of other settings.

    Example:
        >>> import asyncio
        >>> from mcp import Client
        >>> async def play(address):
        ...     async with Client(address) as agent:
        ...         return await agent.call_tool("submit", {"answer": "?"})
        >>> with serve("math") as address:
        ...     result = asyncio.run(play(address))
        >>> result.is_error
        False
    """
    serving = serve_async(
        env_name,
        base_url,
        task=task,
        split=split,
        host=host,
        port=port,
        token=token,
        output=output,
        policy_name=policy_name,
        success=success,
        max_sessions=max_sessions,
        idle_timeout=idle_timeout,
        **arguments,
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving) as address,
    ):
        yield address


@contextlib.asynccontextmanager
@takes_secrets
async def serve_async(
    env_name: str,
    base_url: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    max_sessions: int = 256,
    idle_timeout: float = 1800.0,
    **arguments: Any,
) -> AsyncIterator[str]:
    """As `serve`, on the running event loop.

    Example:
        >>> import asyncio
        >>> async def serve_shortly():
        ...     async with serve_async("math") as address:
        ...         return address
        >>> asyncio.run(serve_shortly()).endswith("/mcp")
        True
    """
    if token is None and host not in LOOPBACK:
        raise InvalidRequestError(
            f"{host} may be reached from other machines: pass token=, which agents "
            "send as Authorization: Bearer TOKEN"
        )
    with listen(host, port) as listener:
        async with (
            _begin_run(env_name, base_url, arguments, many=True) as run,
            _Agents(run, max_sessions, idle_timeout) as agents,
            run_http_server(agents, listener, token=token),
        ):
            yield describe_address(host, listener) + _PATH


@takes_secrets
async def serve_stdio(
    env_name: str, base_url: str | None = None, **arguments: Any
) -> None:
    """Serve one episode over this process's standard input and output.

    It returns once the agent has closed the standard input. What the process prints
    meanwhile goes to standard error.

    Args:
        env_name: As for `serve`.
        base_url: As for `serve`.
        **arguments: Those of `serve`, but for those about HTTP.

    Raises:
        ORSError: As for `serve`.

    Example:
        >>> import asyncio
        >>> asyncio.run(serve_stdio("math", split="nowhere"))
        Traceback (most recent call last):
            ...
        ors_gym.errors.UnknownTaskError: there is no split 'nowhere'; ...
    """
    async with _begin_run(env_name, base_url, arguments, many=False) as run:
        episode_server = make_episode_server(run)
        serving = asyncio.create_task(_serve_streams(episode_server))
        try:
            await asyncio.wait([serving])
        finally:
            # Before all else: whoever ends this process may not wait for long. Until
            # the row is written, a second signal cancels nothing.
            closing = asyncio.create_task(episode_server.close())
            while not closing.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([closing])
            serving.cancel()
            closing.result()
        serving.result()


async def _serve_streams(episode_server: EpisodeServer) -> None:
    async with stdio_server() as (reading, writing):
        # Not `Server.run`, which wants to be told the prompt before it is known.
        await serve_dual_era_loop(
            episode_server.server, reading, writing, lifespan_state={}
        )


@contextlib.asynccontextmanager
async def _begin_run(
    env_name: str,
    base_url: str | None,
    arguments: dict[str, Any],
    *,
    many: bool,
) -> AsyncIterator[AgentRun]:
    connection, arguments = split_client_arguments(arguments)
    rules = take_rules(arguments)
    options = RunOptions(
        env_name=env_name,
        task=arguments.pop("task", None),
        split=arguments.pop("split", None),
        output=arguments.pop("output", None),
        policy_name=arguments.pop("policy_name", "mcp"),
        success=arguments.pop("success", None),
        rules=rules,
        env_arguments=arguments,
    )
    async with connect(base_url, **connection) as client:
        run = await AgentRun.begin(client, options, many=many)
        try:
            yield run
        finally:
            run.close()


def make_episode_server(run: AgentRun) -> EpisodeServer:
    """Show an agent an episode of its own, and keep what comes of it."""
    live = run.next_episode()

    async def keep() -> None:
        live.stop()
        await live.close()
        live.episode.extra = {"agent": episode_server.agent}
        await run.keep(live.episode)

    episode_server = EpisodeServer(live, start=live.start, when_over=keep)
    return episode_server


class _Agents:
    """Every agent's episode, by its session or by the name in its address."""

    def __init__(self, run: AgentRun, max_sessions: int, idle_timeout: float) -> None:
        self._run = run
        self._max_sessions = max_sessions
        self._idle_timeout = idle_timeout
        self._known: dict[bytes, _Agent] = {}
        self._present: dict[_Agent, None] = {}
        """The known ones in order, and those that were not yet given a session."""
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for agent in list(self._present):
            self._part_with(agent)
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        path, headers = scope["path"], dict(scope["headers"])
        name = path.removeprefix(_PATH).strip("/")
        session = headers.get(_SESSION)
        key = f"/{name}".encode() if name else session
        agent = self._known.get(key) if key is not None else None
        if path != _PATH and not path.startswith(_PATH + "/"):
            await refuse(send, 404, f"the address of this server ends with {_PATH}")
        elif agent is not None:
            await self._answer(agent, scope, receive, send)
        elif session is not None:
            await refuse(send, 404, "the session is over, or was never begun")
        elif scope["method"] != "POST":
            await refuse(send, 405, "a session begins with a POST", (b"allow", b"POST"))
        elif len(self._present) >= self._max_sessions:
            await refuse(send, 503, f"{self._max_sessions} agents play already")
        elif not name and not _begins_session(headers):
            await reply_json(send, 400, _NO_SESSIONS)
        else:
            await self._welcome(key, scope, receive, send)

    async def _welcome(
        self, key: bytes | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer an agent that was not here before."""
        agent = _Agent(make_episode_server(self._run), named=key is not None)
        self._present[agent] = None
        if key is not None:
            self._known[key] = agent

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and not agent.keys:
                session = dict(message["headers"]).get(_SESSION)
                if session is not None and message["status"] < 400:
                    agent.keys.append(session)
                    self._known[session] = agent
            await send(message)

        if key is not None:
            agent.keys.append(key)
        await self._answer(agent, scope, receive, watch)
        if not agent.keys:
            self._part_with(agent)

    async def _answer(
        self, agent: _Agent, scope: Scope, receive: Receive, send: Send
    ) -> None:
        leaves = scope["method"] == "DELETE" and not agent.named
        agent.note_request()
        try:
            if leaves:
                # The row is written by the time the agent hears that it has left.
                await agent.episode_server.close()
            await agent.handle_request(scope, receive, send)
        finally:
            agent.note_reply(self._idle_timeout, self._part_with)
        if leaves:
            self._part_with(agent)

    def _part_with(self, agent: _Agent) -> None:
        """End the episode of an agent that has left."""
        for key in agent.keys:
            self._known.pop(key, None)
        if agent in self._present:
            del self._present[agent]
            leaving = asyncio.create_task(agent.close())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


class _Agent:
    """An agent's episode over HTTP. ``named`` is one with an address of its own."""

    def __init__(self, episode_server: EpisodeServer, *, named: bool) -> None:
        self.episode_server = episode_server
        self.named = named
        self.keys: list[bytes] = []
        self._stack = contextlib.AsyncExitStack()
        self._opening = asyncio.ensure_future(
            self._stack.enter_async_context(run_episode_server(episode_server))
        )
        self._requests = 0
        self._has_left = False
        self._departure: asyncio.TimerHandle | None = None

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        application = await asyncio.shield(self._opening)
        await application(scope, receive, send)

    def note_request(self) -> None:
        """Note that somebody asks for something, if only for what will come."""
        self._requests += 1
        if self._departure is not None:
            self._departure.cancel()

    def note_reply(self, timeout: float, depart: Callable[[_Agent], None]) -> None:
        """Note the reply: if nobody asks again in time, the agent has left."""
        self._requests -= 1
        if not self._requests and not self._has_left:
            loop = asyncio.get_running_loop()
            self._departure = loop.call_later(timeout, depart, self)

    async def close(self) -> None:
        self._has_left = True
        if self._departure is not None:
            self._departure.cancel()
        await self._opening
        await self._stack.aclose()


def _begins_session(headers: Mapping[bytes, bytes]) -> bool:
    version = headers.get(_VERSION)
    return version is None or version.decode("latin-1") in HANDSHAKE_PROTOCOL_VERSIONS


_NO_SESSIONS: Final = {
    "jsonrpc": "2.0",
    "id": None,
    "error": {
        "code": UNSUPPORTED_PROTOCOL_VERSION,
        "message": "At this address a session is an episode, and this version of MCP "
        f"has no sessions. Use an earlier version, or an address such as {_PATH}/NAME.",
        "data": {"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": ""},
    },
}
