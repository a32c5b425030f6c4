"""The proxy that records: it passes each exchange on, and keeps it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Final

import httpx2
from starlette.responses import Response
from starlette.types import Send

from ors_gym._system import HAS_OWN_CONNECTIONS
from ors_gym.client import AsyncHTTPTransport
from ors_gym.client.http._address import Origin, default_ssl_context
from ors_gym.errors import ORSError
from ors_gym.protocol._redaction import secrets_of_header
from ors_gym.protocol._sse import Event, EventDecoder
from ors_gym.testing._cassettes.asgi import Application, Asked
from ors_gym.testing._cassettes.rows import (
    CALL,
    EVENT_STREAM,
    SESSION,
    CassetteFile,
    Reply,
    Request,
    Row,
    events_reply,
    read_reply,
    replace_text,
)

_TRANSIENT: Final = frozenset({429, 502, 503, 504})
"""Statuses of a temporary outage: clients ask again, and nothing is recorded."""
_NOT_PASSED_ON: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "host",
        "keep-alive",
        "server",
        "transfer-encoding",
    }
)
_CALLS: Final = ("call", "score_group")
"""Endpoints that answer with a stream whose result can be asked for again."""


class Recorder(Application):
    """An ASGI application that passes requests on to a server and records them.

    Args:
        base_url: The server's address.
        path: The cassette, which is continued if it is there.
        ssl_context: Verifies an https server, as for `AsyncHTTPTransport`.
    """

    def __init__(
        self, base_url: str, path: str, *, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__()
        origin = Origin(base_url)
        self._upstream = f"{origin.scheme}://{origin.authority}{origin.prefix}"
        self._file = CassetteFile(path, self._upstream)
        self._transport = _make_transport(ssl_context)
        self._sessions: dict[str, int] = {}
        """The numbers of the sessions that were created, by their ids."""
        self._calls: dict[str, tuple[Request, str]] = {}
        """Calls that the server has, by their task_ids, and their sessions' ids."""

    async def answer(
        self, asked: Asked, request: Request, send: Send
    ) -> Response | None:
        """Pass one request on."""
        exchange = _Exchange(request, asked.session)
        # As bytes: a header may hold any text, in whatever encoding.
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in asked.headers.items()
            if name not in (*_NOT_PASSED_ON, "accept-encoding")
        ]
        headers.append((b"accept-encoding", b"identity"))
        passed_on = httpx2.Request(
            *(asked.method, f"{self._upstream}{asked.path}"),
            headers=headers,
            content=asked.body or None,
        )
        try:
            response = await self._transport.handle_async_request(passed_on)
            async with contextlib.aclosing(response):
                return await self._pass_on(exchange, response, send)
        except httpx2.TransportError as error:
            return self._refuse(exchange, error)

    def _refuse(self, exchange: _Exchange, error: httpx2.TransportError) -> Response:
        """Answer in place of a server that did not; nothing of it is recorded."""
        detail = self.secrets.hide(f"{self._upstream} did not answer: {error}")
        content = json.dumps({"detail": detail})
        if isinstance(error, httpx2.ConnectError) and exchange.is_call:
            # It was not sent, and this reply says so (docs/wire.md, point 5).
            starting = {"X-Backend-State": "starting", "Retry-After": "1"}
            return Response(content, 503, starting, "application/json")
        return Response(content, 502, media_type="application/json")

    async def _pass_on(
        self, exchange: _Exchange, response: httpx2.Response, send: Send
    ) -> Response | None:
        for cookie in response.headers.get_list("set-cookie"):
            self.secrets.learn(secrets_of_header(cookie.partition(";")[0]))
        location = response.headers.get("location", "").removeprefix(self._upstream)
        headers = [
            (name.lower(), value.removeprefix(self._upstream.encode()))
            for name, value in response.headers.raw
            if name.lower().decode("latin-1") not in _NOT_PASSED_ON
        ]
        kind = response.headers.get("content-type", "")
        if kind.lower().startswith(EVENT_STREAM):
            await self._stream(exchange, response, headers, send)
            return None
        body = b"".join([piece async for piece in response.aiter_raw()])
        if response.status_code not in _TRANSIENT and not exchange.request.task_id:
            reply = read_reply(response.status_code, kind, body, location)
            self._keep(exchange, reply)
        answer = Response(body, response.status_code)
        answer.raw_headers += headers
        return answer

    async def _stream(
        self,
        exchange: _Exchange,
        response: httpx2.Response,
        headers: list[tuple[bytes, bytes]],
        send: Send,
    ) -> None:
        """Pass an event stream on as it comes, also after the client has gone.

        The tool runs to its end whatever the client does, and its result is wanted.
        """
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": headers,
            }
        )
        decoder = EventDecoder()
        async for piece in _pieces(response):
            # Before the client has it: it may ask the next thing at once.
            with contextlib.suppress(ORSError):
                self._take(exchange, response.status_code, decoder.feed(piece))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        # An event that was cut off is left out: whole data ends with a brace.
        rest = [event for event in decoder.finish() if event.data.endswith(b"}")]
        with contextlib.suppress(ORSError):
            self._take(exchange, response.status_code, rest)
        await send({"type": "http.response.body", "body": b""})

    def _take(self, exchange: _Exchange, status: int, events: Iterable[Event]) -> None:
        for event in events:
            exchange.events.append(event)
            if event.name == b"task_id" and exchange.is_call:
                exchange.task_id = event.text()
                if not exchange.request.task_id:
                    self._calls[exchange.task_id] = exchange.request, exchange.session
            elif event.name in (b"end", b"error"):
                self._keep_stream(exchange, status)

    def _keep_stream(self, exchange: _Exchange, status: int) -> None:
        """Record a finished stream; a call's result is recorded only once."""
        reply = events_reply(status, exchange.events)
        if exchange.is_call and (exchange.task_id or exchange.request.task_id):
            # A resumed stream is recorded as the call that it resumes. For a call that
            # the server does not know, it names no task_id.
            asked = self._calls.pop(exchange.task_id, None)
            if asked is None:
                return
            exchange.request, exchange.session = asked
            reply = Reply(
                status, "events", replace_text(reply.content, exchange.task_id, CALL)
            )
        self._keep(exchange, reply)

    def _keep(self, exchange: _Exchange, reply: Reply) -> None:
        request, session_id = exchange.request, exchange.session
        if request.endpoint == "create" and session_id not in self._sessions:
            self._file.last_session += 1
            self._sessions[session_id] = self._file.last_session
        number = self._sessions.get(session_id)
        if session_id and number is None:
            request = dataclasses.replace(request, routed=True)
        if request.endpoint == "create_session":
            session_id = _new_session(reply)
        content = reply.content
        if reply.body != "base64":
            content = self.secrets.hide(replace_text(content, session_id, SESSION))
        location = self.secrets.hide(reply.location)
        kept = dataclasses.replace(reply, content=content, location=location)
        self._file.append(Row(request, kept, number))

    async def close(self) -> None:
        await self._transport.aclose()
        self._file.close()


class _Exchange:
    """A request on its way, and what came of it so far."""

    def __init__(self, request: Request, session_id: str) -> None:
        self.request = request
        self.session = session_id
        self.is_call = request.endpoint in _CALLS
        self.task_id = ""
        self.events: list[Event] = []


def _make_transport(ssl_context: ssl.SSLContext | None) -> httpx2.AsyncBaseTransport:
    # Not an httpx client, which would give one user's cookies to another.
    if HAS_OWN_CONNECTIONS:
        return AsyncHTTPTransport(ssl_context=ssl_context)
    return httpx2.AsyncHTTPTransport(
        verify=ssl_context or default_ssl_context(),
        # No call may find that its connection was closed (docs/wire.md, point 6).
        limits=httpx2.Limits(max_keepalive_connections=0),
    )


async def _pieces(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield a stream as it comes; where it breaks it ends."""
    with contextlib.suppress(httpx2.TransportError):
        async for piece in response.aiter_raw():
            yield piece


def _new_session(reply: Reply) -> str:
    """Find the id that /create_session handed out."""
    match reply.content:
        case [{"task_id": str(found)}, *_] | {"sid": str(found)}:
            return found
    return ""
