"""A chat model behind an OpenAI-compatible API, as the policy."""

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
from ors_gym.formats._messages import join_system_messages
from ors_gym.formats._tools import provider_tool_name
from ors_gym.protocol._reply_json import STRICT_DECODER
from ors_gym.rollout._episode import Episode, Stop, Turn
from ors_gym.types import JSONObject

_OWN_PARAMETERS: Final = frozenset(
    {"messages", "n", "stream", "stream_options", "tools"}
)
"""Parameters that the policy sets itself, or whose answers it could not read."""
_TOOL_PARAMETERS: Final = frozenset({"tool_choice", "parallel_tool_calls"})
"""Parameters that servers refuse in a request without tools."""
_PARAMETERS_OF_TRANSPORT: Final = frozenset(
    {"extra_headers", "extra_query", "timeout", "user"}
)
"""Parameters that do not change what a model says, and may hold secrets."""
_KEPT_OF_ANSWER: Final = ("model", "id", "system_fingerprint", "usage")
_TOOLS_IN_STATE: Final = "ors_gym.ChatPolicy.tools"


class ChatPolicy:
    """A chat model as the policy, behind an OpenAI-compatible API.

    The `Episode` goes out as messages, with the environment's tools passed natively
    and images as data URLs. The model may call several tools in one turn. The rule
    ``on_plain_text`` says what happens after text without a call. One policy can play
    any number of episodes at once, on any event loops; each loop has one client, which
    is closed with the loop.

    Each `Turn` keeps the assistant's message as the server wrote it, and in ``extra``
    the ``finish_reason``, the server's ``usage`` (token counts), and ``logprobs`` where
    they were asked for.

    The ``openai`` package retries a failing model server and heeds ``Retry-After``. If
    the server still fails, the policy raises: the episode ends without an outcome, and
    the model never reads of it. A conversation that outgrows the model's context is an
    outcome: the episode ends as ``max_tokens``.

    Args:
        model: The model's name on the server.
        base_url: The API's address, such as ``http://127.0.0.1:8000/v1``. If None, it
            is ``OPENAI_BASE_URL``, or OpenAI's own.
        api_key: The key. If None, it is ``OPENAI_API_KEY``; with ``base_url`` no key
            is needed. With ``""`` the environment's key is not sent to ``base_url``.
            No repr, record or message holds the key.
        system_prompt: A message before the environment's prompt. The environment's
            own system message is joined to it. Reasoning in that prompt is sent as
            ``reasoning_content``, except to OpenAI, which would refuse it.
        timeout: Seconds that one request may take.
        max_retries: How often a request is repeated at most.
        **parameters: Any other parameters of ``chat.completions.create``:
            ``temperature``, ``max_tokens``, ``tool_choice``, ``extra_body``, ... If
            ``seed`` is not among them, ``episode.seed`` is sent; ``seed=None`` sends
            none.

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
        if refused := _OWN_PARAMETERS & parameters.keys():
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
        self._service = _ChatService(base_url, api_key, timeout, max_retries)

    @property
    def policy_name(self) -> str:
        """The model's name, with the parameters that change what it says.

        An evaluation's output file holds it, so that no run is continued with another
        temperature. Values that are not numbers stand there as digests.
        """
        given = {"system_prompt": self.system_prompt, **self.parameters}
        named = [
            f"{name}={_digest(value)}"
            for name, value in sorted(given.items())
            if value is not None and name not in _PARAMETERS_OF_TRANSPORT
        ]
        return f"{self.model}({', '.join(named)})" if named else self.model

    def __repr__(self) -> str:
        return f"ChatPolicy({self.policy_name!r}, host={self._service.host!r})"

    async def __call__(self, episode: Episode) -> Turn | Stop:
        """Return the model's next turn, or `Stop` where its context is full."""
        try:
            answer, choice, message = await self._service.complete(
                self._request(episode)
            )
        except _ContextFullError:
            if not episode.turns:
                # The prompt alone is too long: no policy could play this task.
                raise
            return Stop("max_tokens")
        extra = {
            name: answer[name]
            for name in _KEPT_OF_ANSWER
            if answer.get(name) is not None
        }
        extra["finish_reason"] = choice.get("finish_reason")
        if choice.get("logprobs") is not None:
            extra["logprobs"] = choice["logprobs"]
        return Turn(None, message=message, extra=extra)

    async def aclose(self) -> None:
        """Close the connections of the running event loop.

        They are closed with the loop anyway. The policy can still be used.
        """
        await self._service.aclose()

    def _request(self, episode: Episode) -> dict[str, Any]:
        messages = [_as_sent(message) for message in episode.messages()]
        if self._service.host.endswith(_REFUSE_REASONING):
            # Only the environment's prompt has any: these servers give none.
            messages = [
                {
                    name: one
                    for name, one in message.items()
                    if name != "reasoning_content"
                }
                for message in messages
            ]
        if self.system_prompt is not None:
            own = {"role": "system", "content": self.system_prompt}
            messages = join_system_messages([own], messages)
        request = {"seed": episode.seed, **self.parameters}
        request = {name: one for name, one in request.items() if one is not None}
        tools = episode.state.get(_TOOLS_IN_STATE)
        if tools is None:
            tools = _without_surrogates(to_openai_tools(episode.tools))
            episode.state[_TOOLS_IN_STATE] = tools
        if tools:
            # Servers refuse an empty list.
            request["tools"] = tools
        else:
            request = {k: v for k, v in request.items() if k not in _TOOL_PARAMETERS}
        return {**request, "model": self.model, "messages": messages}


def _read_answer(
    answer: JSONObject, host: str, key: str
) -> tuple[JSONObject, JSONObject]:
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        # Some gateways report a failed provider with status 200.
        said = _hide(json.dumps(answer.get("error")), key)[:300]
        raise ProtocolError(f"{host}: the answer holds no message (error: {said})")
    # Servers may leave out role and content; what reads the message needs both.
    return choice, {"role": "assistant", "content": None, **message}


def _as_sent(message: JSONObject) -> JSONObject:
    """Return a message of the conversation in a form that every server accepts.

    Servers refuse some of what their own models write: nulls, empty lists of calls,
    impossible tool names, arguments that are no JSON object (chat templates decode
    them) and halves of surrogate pairs.
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
        # The result that follows says what was wrong with the arguments.
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
    """Show a number; of anything else, show enough to tell that it was changed."""
    if isinstance(value, bool | int | float):
        return str(value)
    text = json.dumps(value, sort_keys=True, default=repr)
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:8]


_KEY: Final = "OPENAI_API_KEY"
_REFUSE_REASONING: Final = ("OpenAI", "api.openai.com", ".openai.azure.com")
"""Hosts that refuse a request with a field that they do not know."""
_ADDRESS: Final = "OPENAI_BASE_URL"
_NO_KEY: Final = "none"
"""Sent to servers that ask for no key: the library insists on one."""
_LONGEST_DETAIL: Final = 500
_TRY_LATER: Final = frozenset({408, 409, 425, 429})
_CONTEXT_FULL: Final = (
    "context_length_exceeded",  # OpenAI's `code`
    "maximum context length",  # vLLM's message
    "model's context length",  # that of SGLang and Together
    "exceed_context_size_error",  # llama.cpp's `type`
)


class _ContextFullError(InvalidRequestError):
    """The conversation is longer than the model's context."""


class _ChatService:
    """Where a model is served, and how it is asked.

    Connections belong to an event loop. Each loop has one client, which all episodes
    there share. It is closed when the loop is (by `asyncio.run`, say), or when nobody
    holds the service any more.
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
        self.host = _read_host(address)  # for messages
        key = api_key if api_key is not None else _environment_key()
        if not address and not key:
            raise AuthenticationError(
                f"OpenAI's API asks for a key; pass api_key=, set {_KEY}, or pass the "
                "base_url= of a server of your own"
            )
        if not key.isascii() or not key.isprintable():
            raise AuthenticationError("the model's key holds what no header can hold")
        # A key from the environment is not stored: a pickled policy must not hold it.
        self._api_key = api_key
        self._base_url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        self._clients: dict[asyncio.AbstractEventLoop, _ClientOfLoop] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_clients": {}}

    async def complete(
        self, request: Mapping[str, Any]
    ) -> tuple[JSONObject, JSONObject, JSONObject]:
        """Return a chat completion as JSON, its choice, and the message of that.

        Raises an `ORSError` after the retries.
        """
        openai = _import_openai()
        client = await self._client(openai)
        try:
            reply = await client.chat.completions.with_raw_response.create(**request)
        except openai.OpenAIError as error:
            problem = _translate(openai, error, client.api_key)
            # The library's error holds the request, and with it the key.
            raise type(problem)(f"{self.host}: {problem}", **vars(problem)) from None
        try:
            answer = STRICT_DECODER.decode(reply.content.decode())
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ProtocolError(f"{self.host}: the model's answer is no JSON object")
        return answer, *_read_answer(answer, self.host, client.api_key)

    async def aclose(self) -> None:
        """Close the client of the running loop; the next request opens another."""
        client = self._clients.get(asyncio.get_running_loop())
        if client is not None:
            await client.aclose()

    async def _client(self, openai: Any) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            key = self._api_key if self._api_key is not None else _environment_key()
            client = openai.AsyncOpenAI(
                api_key=key or _NO_KEY,
                base_url=self._base_url,
                timeout=self._timeout,
                max_retries=self._max_retries,
            )
            self._clients[loop] = _ClientOfLoop(client, loop, self._clients)
            await self._clients[loop].begin(self)
        return self._clients[loop].client


class _ClientOfLoop:
    """A client that ends with its event loop, or with the service.

    A generator begun on the loop waits for the end: a loop closes its generators when
    it is shut down (``loop.shutdown_asyncgens``, PEP 525), as `asyncio.run` does.
    """

    def __init__(
        self,
        client: Any,
        loop: asyncio.AbstractEventLoop,
        clients: dict[asyncio.AbstractEventLoop, _ClientOfLoop],
    ) -> None:
        self.client = client
        self._loop = loop
        self._clients = clients
        self._life = self._live()

    async def begin(self, owner: _ChatService) -> None:
        """Begin the generator, without waiting for anything.

        The finalizer keeps this object alive after ``owner`` is collected; otherwise
        its open sockets would be collected unclosed.
        """
        self._ending = weakref.finalize(owner, self._end_soon)
        self._ending.atexit = False
        await anext(self._life)

    async def aclose(self) -> None:
        await self._life.aclose()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._ending.detach()
            self._clients.pop(self._loop, None)
            await self.client.close()

    def _end_soon(self) -> None:
        """Close the client on its loop, whichever thread this is."""
        # The loop may be closed already, or close in between.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(
                lambda: self._loop.create_task(self.aclose())
            )


def _environment_key() -> str:
    # A key read from a file often ends with a line end.
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


def _translate(openai: Any, error: Exception, key: str) -> ORSError:
    detail = _hide(str(error), key)[:_LONGEST_DETAIL]
    if isinstance(error, openai.APIConnectionError):
        # Its text is only "Connection error."; the cause says which.
        cause = f" ({_hide(str(error.__cause__), key)})" if error.__cause__ else ""
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
        return _ContextFullError(
            f"the conversation is too long: {detail}", status=status
        )
    return InvalidRequestError(f"the request is refused: {detail}", status=status)


def _hide(text: str, key: str) -> str:
    """Take the key out of a text: some servers repeat it in their errors."""
    return text if key in ("", _NO_KEY) else text.replace(key, "[key]")
