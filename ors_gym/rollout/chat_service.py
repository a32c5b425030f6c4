"""A model behind an OpenAI-compatible API: its clients, requests and failures."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import weakref
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ors_gym.actions.json_values import STRICT_DECODER
from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    MissingExtraError,
    ORSError,
    ProtocolError,
    ServerError,
)
from ors_gym.types import JSONObject

__all__ = ["ChatService", "ContextFullError"]

_KEY: Final = "OPENAI_API_KEY"
_ADDRESS: Final = "OPENAI_BASE_URL"
_NO_KEY: Final = "none"
"""Sent to servers that ask for no key, since the library insists on one."""
_LONGEST_DETAIL: Final = 500
_TRY_LATER: Final = frozenset({408, 409, 425, 429})
_CONTEXT_FULL: Final = (
    "context_length_exceeded",  # OpenAI's `code`
    "maximum context length",  # vLLM's message
    "exceed_context_size_error",  # llama.cpp's `type`
)


class ContextFullError(InvalidRequestError):
    """Raised when a conversation has outgrown what the model can read."""


class ChatService:
    """Where a model is served, and how it is asked.

    Connections belong to an event loop. Each loop has a client of its own, which all
    episodes there share, and which is closed when the loop is (as `asyncio.run` does
    it) or when nobody holds the service any more.

    Args:
        base_url: The address; that of ``OPENAI_BASE_URL``, or OpenAI's, if None.
        api_key: The key; that of ``OPENAI_API_KEY`` if None.
        timeout: Seconds that one request may take.
        max_retries: How often the library repeats a request that was refused for
            now, met a failing server, or broke off.

    Raises:
        InvalidRequestError: If the address cannot be right.
        AuthenticationError: If there is no key for OpenAI itself.
        MissingExtraError: If the ``openai`` package is not installed.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        timeout: float,
        max_retries: int,
    ) -> None:
        _load_library()
        address = base_url or os.environ.get(_ADDRESS)
        self.host = _read_host(address)
        """The server's name, for messages."""
        key = api_key if api_key is not None else _environment_key()
        if not address and not key:
            raise AuthenticationError(
                f"OpenAI's API asks for a key; pass api_key=, set {_KEY}, or pass the "
                "base_url= of a server of your own"
            )
        if not key.isascii() or not key.isprintable():
            raise AuthenticationError("the model's key holds what no header can hold")
        # A key of the environment stays there: a pickled policy does not hold it.
        self._api_key = api_key
        self._base_url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        self._leases: dict[asyncio.AbstractEventLoop, _Lease] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_leases": {}}

    async def complete(self, request: Mapping[str, Any]) -> JSONObject:
        """Ask for one chat completion.

        Args:
            request: The arguments of the library's ``chat.completions.create``.

        Returns:
            The answer's JSON as the server wrote it.

        Raises:
            ContextFullError: If the model cannot read that much.
            AuthenticationError: If the key is refused.
            InvalidRequestError: If the request is.
            ConnectionFailedError: If the server cannot be reached, after retries.
            ServerError: If it fails or refuses for now, after retries.
            ProtocolError: If the answer is not JSON, or not an object.
        """
        openai = _load_library()
        client = await self._client(openai)
        try:
            reply = await client.chat.completions.with_raw_response.create(**request)
        except openai.OpenAIError as error:
            problem = _translate(openai, error)
            text = _hide(f"{self.host}: {problem}", client.api_key)
            # Theirs holds the request, and with it the key.
            raise type(problem)(text, **vars(problem)) from None
        try:
            answer = STRICT_DECODER.decode(reply.content.decode())
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ProtocolError(f"{self.host}: the model's answer is no JSON object")
        return answer

    async def aclose(self) -> None:
        """Close the client of the running loop; the next request opens another."""
        lease = self._leases.get(asyncio.get_running_loop())
        if lease is not None:
            await lease.aclose()

    async def _client(self, openai: Any) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._leases:
            key = self._api_key if self._api_key is not None else _environment_key()
            client = openai.AsyncOpenAI(
                api_key=key or _NO_KEY,
                base_url=self._base_url,
                timeout=self._timeout,
                max_retries=self._max_retries,
            )
            self._leases[loop] = _Lease(client, loop, self._leases)
            await self._leases[loop].begin(self)
        return self._leases[loop].client


class _Lease:
    """A client that ends with its event loop, or with the service.

    A loop closes the generators that were begun on it, as `asyncio.run` has it do
    (``loop.shutdown_asyncgens``, PEP 525).

    Args:
        client: The client.
        loop: The loop.
        leases: Where this is found until it ends.
    """

    def __init__(
        self,
        client: Any,
        loop: asyncio.AbstractEventLoop,
        leases: dict[asyncio.AbstractEventLoop, _Lease],
    ) -> None:
        self.client = client
        self._loop = loop
        self._leases = leases
        self._life = self._live()

    async def begin(self, owner: ChatService) -> None:
        """Have the loop know of it; waits for nothing.

        Args:
            owner: The service. The lease is held until it ends, also when the service
                is garbage: else its open sockets would be garbage too.
        """
        self._ending = weakref.finalize(owner, self._end_soon)
        self._ending.atexit = False
        await anext(self._life)

    async def aclose(self) -> None:
        """Close the client now."""
        await self._life.aclose()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._ending.detach()
            self._leases.pop(self._loop, None)
            await self.client.close()

    def _end_soon(self) -> None:
        """Close the client on its loop, whichever thread this is."""
        # The loop may be closed already, or close in between.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(
                lambda: self._loop.create_task(self.aclose())
            )


def _environment_key() -> str:
    # A line end, which files of keys have, is no part of it.
    return os.environ.get(_KEY, "").strip()


def _read_host(address: str | None) -> str:
    """Return the server's name and port, without the user's name and password."""
    if not address:
        return "OpenAI"
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidRequestError(
            "the model's base_url must begin with http:// or https://, and a host"
        )
    return parts.netloc.rpartition("@")[2]


def _load_library() -> Any:
    """Import the library, which takes a second, when it is needed."""
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise MissingExtraError(
            "ChatPolicy needs 'openai', which is not installed. Install it with: "
            'pip install "ors-gym[llm]"'
        ) from error


def _translate(openai: Any, error: Exception) -> ORSError:
    """Return what the library's error is among ours."""
    detail = str(error)[:_LONGEST_DETAIL]
    if isinstance(error, openai.APIConnectionError):
        # Its own text is "Connection error."; the cause says which.
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return ConnectionFailedError(f"the model cannot be reached: {detail}{cause}")
    if not isinstance(error, openai.APIStatusError):
        return ProtocolError(f"the model's answer cannot be used: {detail}")
    status: int = getattr(error, "status_code", 0)
    if status in (401, 403):
        return AuthenticationError(f"the key is refused: {detail}", status=status)
    if status >= 500 or status in _TRY_LATER:
        return ServerError(f"the model's server fails: {detail}", status=status)
    body = f"{getattr(error, 'code', '')} {getattr(error, 'body', '')} {error}"
    if any(sign in body for sign in _CONTEXT_FULL):
        return ContextFullError(
            f"the conversation is too long: {detail}", status=status
        )
    return InvalidRequestError(f"the request is refused: {detail}", status=status)


def _hide(text: str, key: str) -> str:
    """Take a key out of a text, as some servers repeat it."""
    return text if key in ("", _NO_KEY) else text.replace(key, "[key]")
