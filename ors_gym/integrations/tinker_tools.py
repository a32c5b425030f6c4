"""Tools, rewards and messages as the tinker cookbook has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ors_gym.errors import EpisodeOverError, MissingExtraError, ORSError
from ors_gym.formats import to_openai_tools
from ors_gym.rollout import Episode, LiveEpisode, StopReason, Turn
from ors_gym.rollout.messages import not_run
from ors_gym.types import JSONObject

try:
    from tinker_cookbook.renderers.base import Message, ToolCall, get_text_content
    from tinker_cookbook.rl.types import Metrics
    from tinker_cookbook.tool_use.types import Tool, ToolInput, ToolResult
except ImportError as error:
    raise MissingExtraError(
        "tinker-cookbook is not installed; install it with: "
        'pip install "ors-gym[tinker]"'
    ) from error

__all__ = [
    "ORSTool",
    "answer_of",
    "ors_reward",
    "ors_tools",
    "reward_of",
    "to_message",
]


class ORSTool(Tool):
    """A tool of a live episode, as the cookbook's own environments use them.

    Args:
        live: The episode, which has started.
        name: The tool's name, as the model is told it.
        description: Its description.
        parameters_schema: The JSON Schema of its arguments.
    """

    def __init__(
        self,
        live: LiveEpisode,
        name: str,
        description: str,
        parameters_schema: dict[str, Any],
    ) -> None:
        self._live = live
        self._function = (name, description, parameters_schema)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self._function[0]

    @property
    def description(self) -> str:
        """What it does."""
        return self._function[1]

    @property
    def parameters_schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        return self._function[2]

    async def run(self, input: ToolInput) -> ToolResult:
        """Call it. Calls of one message are made one after another, in their order.

        Args:
            input: The arguments.

        Returns:
            The result, and whether the episode is over.

        Raises:
            ORSError: For an outage.
        """
        function = {"name": self.name, "arguments": input.arguments}
        call = {"id": input.call_id or "", "type": "function", "function": function}
        try:
            told = await self._live.take(call)
        except EpisodeOverError:
            # Another call of the same message ended the episode.
            why = not_run(self._live.episode.stop_reason)
            said = {"role": "tool", "content": why}
            told = [{**said, "tool_call_id": input.call_id or ""}]
        messages = [to_message(one, self._live.episode) for one in told]
        return ToolResult(messages=messages, should_stop=self._live.ended)


def ors_tools(live: LiveEpisode) -> list[ORSTool]:
    """Return the tools of an episode, for ``build_agent_tool_env``.

    Args:
        live: The episode, which has started.
    """
    functions = [tool["function"] for tool in to_openai_tools(live.episode.tools)]
    return [
        ORSTool(live, function["name"], function["description"], function["parameters"])
        for function in functions
    ]


def ors_reward(
    live: LiveEpisode,
) -> Callable[[list[Message]], Awaitable[tuple[float, dict[str, float]]]]:
    """Return the ``reward_fn`` of an episode, for ``build_agent_tool_env``.

    Args:
        live: The episode.

    Returns:
        A function that ends the episode and returns its reward; it raises after an
        outage.
    """

    async def reward(_: list[Message]) -> tuple[float, dict[str, float]]:
        return reward_of(live, "policy_stopped")

    return reward


def reward_of(live: LiveEpisode, reason: StopReason) -> tuple[float, Metrics]:
    """End an episode.

    Args:
        live: The episode.
        reason: Why, if it did not end by itself.

    Returns:
        Its reward and its figures.

    Raises:
        ORSError: If it has no reward, because of an outage.
    """
    reward = live.stop(reason)
    if reward is None:
        raise live.episode.cause or ORSError(
            f"the episode has no reward: {live.episode.error or 'it did not start'}"
        )
    figures = live.episode.metrics().items()
    return reward, {f"ors/{name}": value for name, value in figures}


def answer_of(message: Message) -> Any:
    """Return what a message of the cookbook's means to an episode.

    Args:
        message: The assistant's message.

    Returns:
        What `LiveEpisode.take` is given.
    """
    text = get_text_content(message)
    actions = [call.model_dump() for call in message.get("tool_calls") or ()]
    # Read once more, which tells the model in our words what is wrong with them.
    actions += [call.raw_text for call in message.get("unparsed_tool_calls") or ()]
    return Turn(actions, message=text) if actions else text


def to_message(message: JSONObject, episode: Episode) -> Message:
    """Return a chat message as the cookbook has it.

    Args:
        message: The message.
        episode: The episode that it belongs to.

    Returns:
        The message, a tool's answer with the tool's name.
    """
    told = Message(role=message["role"], content=_content(message.get("content")))
    if message["role"] == "tool":
        told["tool_call_id"] = message["tool_call_id"]
        steps = [s for s in episode.steps if s.call_id == message["tool_call_id"]]
        told["name"] = steps[-1].tool if steps else ""
    calls = [ToolCall.model_validate(call) for call in message.get("tool_calls") or ()]
    if calls:
        told["tool_calls"] = calls
    return told


def _content(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    return [
        {"type": "image", "image": part["image_url"]["url"]}
        if part["type"] == "image_url"
        else {"type": "text", "text": part["text"]}
        for part in content
    ]
