"""A model behind an OpenAI-compatible API: its clients, requests and failures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import weakref
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    ORSError,
    ProtocolError,
    ServerError,
    import_extra,
)
from ors_gym.formats import to_openai_tools
from ors_gym.formats._blocks import replace_surrogates
from ors_gym.formats._json import STRICT_DECODER
from ors_gym.formats._tools import provider_tool_name
from ors_gym.rollout._episode import Episode, Turn
from ors_gym.types import JSONObject

__all__ = ["ChatPolicy", "ChatService", "ContextFullError"]

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
        _import_openai()
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
        openai = _import_openai()
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


def _import_openai() -> Any:
    """Import the library when it is needed: it takes a second."""
    return import_extra("openai", "llm", "ChatPolicy")


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


_TOOLS: Final = "ors_gym.ChatPolicy.tools"
_OWN: Final = frozenset({"messages", "n", "stream", "stream_options", "tools"})
"""Parameters that the policy sets itself, or whose answers it could not read."""
_NEED_TOOLS: Final = frozenset({"tool_choice", "parallel_tool_calls"})
_NO_SAMPLING: Final = frozenset({"extra_headers", "extra_query", "timeout", "user"})
"""Parameters that do not change what a model says, and may hold secrets."""
_KEPT: Final = ("model", "id", "system_fingerprint", "usage")


class ChatPolicy:
    """Has a chat model play: the `Episode` goes out as messages, the answer comes back.

    The environment's tools are passed natively, images as data URLs. The model may
    call several tools in one turn; text without a call is dealt with as
    ``on_plain_text`` says. One policy can play any number of episodes at once, on any
    event loops; each loop has one client, closed with it.

    Each `Turn` keeps the assistant's message as the server wrote it, and in ``extra``
    the ``finish_reason``, the server's ``usage`` (token counts), and ``logprobs`` where
    they were asked for.

    A failing model server, after the retries that the ``openai`` package makes (it
    heeds ``Retry-After``), raises: that ends the episode without an outcome, and the
    model is never told. A conversation that outgrows the model's context is an
    outcome: the policy stops.

    Args:
        model: The model's name on the server.
        base_url: The API's address, such as ``http://127.0.0.1:8000/v1``; that of
            ``OPENAI_BASE_URL``, or OpenAI's, if None.
        api_key: The key; that of ``OPENAI_API_KEY`` if None, and with ``base_url``
            none is needed. ``""`` keeps the environment's key from ``base_url``. It
            is in no repr, record or message.
        system_prompt: A message that comes before the environment's own.
        timeout: Seconds that one request may take.
        max_retries: How often a request is repeated at most.
        **parameters: Any other of ``chat.completions.create``: ``temperature``,
            ``max_tokens``, ``tool_choice``, ``extra_body``, ... ``seed`` is
            ``episode.seed`` where there is one and none is given here; ``seed=None``
            sends none.

    Raises:
        InvalidRequestError: If an argument cannot be right.
        AuthenticationError: If there is no key for OpenAI's own API.
        MissingExtraError: If the ``openai`` package is not installed.

    Example:
        >>> policy = ChatPolicy(
        ...     "qwen3", base_url="http://127.0.0.1:8000/v1", api_key="s3cret"
        ... )
        >>> policy
        ChatPolicy('qwen3', host='127.0.0.1:8000')
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        system_prompt: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 5,
        **parameters: Any,
    ) -> None:
        if refused := _OWN & parameters.keys():
            raise InvalidRequestError(
                f"ChatPolicy does not take {', '.join(sorted(refused))}: it sends one "
                "conversation, with the environment's tools, and reads one answer"
            )
        if not model or max_retries < 0 or not timeout > 0:
            raise InvalidRequestError(
                "ChatPolicy takes a model's name, a timeout of more than 0 seconds, "
                "and max_retries of 0 or more"
            )
        self.model = model
        self.system_prompt = system_prompt
        self.parameters = parameters
        self._service = ChatService(base_url, api_key, timeout, max_retries)

    @property
    def policy_name(self) -> str:
        """The model's name, with the parameters that change what it says.

        An evaluation's output file holds it, so that one run is not continued with
        another temperature. What is no number stands there as a digest.
        """
        given = {"system_prompt": self.system_prompt, **self.parameters}
        told = [
            f"{name}={_digest(value)}"
            for name, value in sorted(given.items())
            if value is not None and name not in _NO_SAMPLING
        ]
        return f"{self.model}({', '.join(told)})" if told else self.model

    def __repr__(self) -> str:
        return f"ChatPolicy({self.policy_name!r}, host={self._service.host!r})"

    async def __call__(self, episode: Episode) -> Turn | None:
        """Ask the model for its next turn.

        Args:
            episode: The episode so far.

        Returns:
            The turn; None if the conversation has outgrown the model's context.

        Raises:
            ORSError: If the model's server refuses or fails.
        """
        try:
            answer = await self._service.complete(self._request(episode))
        except ContextFullError:
            if not episode.turns:
                # It is not the episode that is too long, but the model too small.
                raise
            return None
        choice, message = _read_answer(answer, self._service.host)
        extra = {name: answer[name] for name in _KEPT if answer.get(name) is not None}
        extra["finish_reason"] = choice.get("finish_reason")
        if choice.get("logprobs") is not None:
            extra["logprobs"] = choice["logprobs"]
        return Turn(None, message=message, extra=extra)

    async def aclose(self) -> None:
        """Close the connections of the running event loop.

        Only needed to free them early. The policy can still be used.
        """
        await self._service.aclose()

    def _request(self, episode: Episode) -> dict[str, Any]:
        messages = [_as_sent(message) for message in episode.messages()]
        if self.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        request = {"seed": episode.seed, **self.parameters}
        request = {name: one for name, one in request.items() if one is not None}
        tools = episode.state.get(_TOOLS)
        if tools is None:
            tools = _without_surrogates(to_openai_tools(episode.tools))
            episode.state[_TOOLS] = tools
        if tools:
            # An empty list is refused.
            request["tools"] = tools
        else:
            request = {k: v for k, v in request.items() if k not in _NEED_TOOLS}
        return {**request, "model": self.model, "messages": messages}


def _read_answer(answer: JSONObject, host: str) -> tuple[JSONObject, JSONObject]:
    """Return the first choice and its message."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        # Some gateways report a failed provider with status 200.
        said = json.dumps(answer.get("error"))[:300]
        raise ProtocolError(f"{host}: the answer holds no message (error: {said})")
    # Both may be left out, and are not where the message is read or sent back.
    return choice, {"role": "assistant", "content": None, **message}


def _as_sent(message: JSONObject) -> JSONObject:
    """Return a message of the conversation so that every server takes it back.

    Servers are stricter with what they get than with what their models write: nulls,
    empty lists of calls, names of tools that there cannot be, arguments that are no
    JSON object (chat templates decode them) and halves of surrogate pairs are refused.
    """
    if message.get("role") != "assistant":
        return message
    sent = {
        name: value
        for name, value in message.items()
        if name == "content" or (value is not None and value != [])
    }
    if "tool_calls" in sent:
        sent["tool_calls"] = [_call_as_sent(call) for call in sent["tool_calls"]]
    cleaned: JSONObject = _without_surrogates(sent)
    return cleaned


def _call_as_sent(call: Mapping[str, Any]) -> JSONObject:
    function = call["function"]
    name, arguments = function.get("name"), function["arguments"]
    try:
        is_object = isinstance(STRICT_DECODER.decode(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        # The result that follows says what was wrong with it.
        unread = {"invalid_arguments": arguments} if arguments.strip() else {}
        arguments = json.dumps(unread)
    if not isinstance(name, str) or not name:
        name = "unnamed"
    function = {"name": provider_tool_name(name), "arguments": arguments}
    return {**call, "type": "function", "function": function}


def _without_surrogates(value: Any) -> Any:
    """Return a JSON value without lone surrogates, which cannot be sent."""
    return json.loads(replace_surrogates(json.dumps(value, ensure_ascii=False)))


def _digest(value: Any) -> str:
    """Show a number, and of anything else enough to tell that it was changed."""
    if isinstance(value, bool | int | float):
        return str(value)
    text = json.dumps(value, sort_keys=True, default=repr)
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:8]
