"""A chat model as the policy, on any server that speaks OpenAI's chat completions.

The ``openai`` package, which the extra ``llm`` brings, is imported when the first
`ChatPolicy` is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.actions.json_values import STRICT_DECODER
from ors_gym.actions.tool_names import provider_tool_name
from ors_gym.errors import InvalidRequestError, ProtocolError
from ors_gym.formats import to_openai_tools
from ors_gym.observations.rendering import replace_surrogates
from ors_gym.rollout.chat_service import ChatService, ContextFullError
from ors_gym.rollout.episode import Episode
from ors_gym.rollout.turn import Turn
from ors_gym.types import JSONObject

__all__ = ["ChatPolicy"]

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
