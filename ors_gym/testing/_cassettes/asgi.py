"""What the recorder and the player have in common as ASGI applications."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ors_gym.protocol._requests import SESSION_HEADER
from ors_gym.testing._cassettes.rows import Request, Secrets


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request as it came, secrets and all."""

    method: str
    path: str
    headers: dict[str, str]
    """Named in lower case."""
    body: bytes

    @property
    def session(self) -> str:
        """The id of the session that it names, or ``""``."""
        return self.headers.get(SESSION_HEADER.lower(), "").strip()


class Application(ABC):
    """An ASGI application that learns the secrets of the requests it gets."""

    def __init__(self) -> None:
        self.secrets = Secrets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        request = HTTPRequest(scope, receive)
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += f"?{scope['query_string'].decode('latin-1')}"
        body = await request.body()
        asked = Asked(request.method, path, dict(request.headers), body)
        clean = self.secrets.read_request(asked.method, path, asked.headers, body)
        response = await self.answer(asked, clean, send)
        if response is not None:
            await response(scope, receive, send)

    @abstractmethod
    async def answer(
        self, asked: Asked, request: Request, send: Send
    ) -> Response | None:
        """Return the answer to a request, or send it and return None.

        ``request`` is the same without its secrets.
        """

    async def close(self) -> None:  # noqa: B027 - a player holds nothing open
        """Close what the application holds open."""
