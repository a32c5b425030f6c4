"""Tools, rewards and messages as the tinker cookbook has them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import (
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    needs_extra,
)
from ors_gym.formats import describe_tools, to_openai_tools
from ors_gym.rollout import Episode, StopReason, Turn
from ors_gym.rollout._episode import not_run
from ors_gym.rollout._live import LiveEpisode, connect
from ors_gym.types import JSONObject

__all__ = [
    "ORSGroupBuilder",
    "ORSMessageEnv",
    "ORSTool",
    "answer_of",
    "ors_reward",
    "ors_tools",
    "reward_of",
    "to_message",
]

with needs_extra("tinker", "ors_gym.integrations.tinker"):
    from tinker_cookbook.renderers.base import Message, ToolCall, get_text_content
    from tinker_cookbook.rl.types import Metrics
    from tinker_cookbook.tool_use.types import Tool, ToolInput, ToolResult


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


with needs_extra("tinker", "ors_gym.integrations.tinker"):
    from tinker_cookbook.renderers import Renderer
    from tinker_cookbook.renderers.base import Message
    from tinker_cookbook.rl.message_env import (
        EnvFromMessageEnv,
        MessageEnv,
        MessageStepResult,
    )
    from tinker_cookbook.rl.types import Env, EnvGroupBuilder, Metrics, Trajectory


_log = logging.getLogger(__name__)
_REASONS: Final[dict[str | None, StopReason]] = {
    "max_turns": "max_turns",
    "rollout_timeout": "deadline",
}
"""Ours for the cookbook's stop reasons; any other is the policy's end."""


class ORSMessageEnv(MessageEnv):
    """One episode, message by message.

    Args:
        live: The episode, which has not started.
        renderer: Tells the model of the tools in its own way, if it has one.
        system_prompt: What the conversation begins with.
    """

    def __init__(
        self, live: LiveEpisode, renderer: Renderer, system_prompt: str = ""
    ) -> None:
        self.live = live
        self._renderer = renderer
        self._system_prompt = system_prompt
        self._history: list[Message] = []

    async def initial_observation(self) -> list[Message]:
        """Open the session.

        Returns:
            The tools and the environment's prompt as messages.

        Raises:
            ORSError: If the episode cannot be set up.
        """
        opening = await self.live.start()
        self._history = self._describe_tools()
        self._tell(opening)
        return self._history

    def _describe_tools(self) -> list[Message]:
        tools = self.live.episode.tools
        specs = [tool["function"] for tool in to_openai_tools(tools)]
        try:
            told: list[Message] = self._renderer.create_conversation_prefix_with_tools(
                specs, self._system_prompt
            )
        except NotImplementedError:
            words = filter(None, (self._system_prompt, describe_tools(tools)))
            return [Message(role="system", content="\n\n".join(words))]
        return list(told)

    async def step(self, message: Message) -> MessageStepResult:
        """Play one turn.

        Args:
            message: The assistant's message.

        Returns:
            The conversation, and whether the episode is over. The reward is 0: the
            group's builder pays the whole episode.

        Raises:
            ORSError: For an outage.
        """
        self._history.append(message)
        self._tell(await self.live.take(answer_of(message)))
        done = self.live.ended
        return MessageStepResult(
            reward=0.0, episode_done=done, next_messages=list(self._history)
        )

    def _tell(self, messages: Sequence[JSONObject]) -> None:
        self._history += [to_message(one, self.live.episode) for one in messages]


@dataclasses.dataclass
class ORSGroupBuilder(EnvGroupBuilder):
    """Builds the environments of a group: rollouts of one task, each on a session.

    It can be pickled, sessions and connections aside. Secrets do not travel in a
    pickle: they come from a function, which is called where the group is played.

    Args:
        env_name: The environment's name on the server.
        task: The task's index in the split, or the task itself.
        renderer: The model's; made by the cookbook's ``get_renderer``.
        group_size: The number of rollouts.
        base_url: The server's address, as for `ORSEnv`.
        split: The split of an index.
        system_prompt: What each conversation begins with.
        arguments: What `LiveEpisode` takes besides: ``max_turns``,
            ``reward_reduction``, ``nonterminal_reward``, ``call_timeout``, ...
        secrets: Returns the secrets of the environment.
        client_factory: Makes the client, where more than an address is needed; a key
            is also found in ``ORS_API_KEY``.
        max_trajectory_tokens: The cookbook's limit on a conversation.
        max_generation_tokens: The cookbook's limit on a turn, to know when the
            conversation is full.

    Raises:
        InvalidRequestError: If an argument cannot be right, or is secret.
    """

    env_name: str
    task: int | Mapping[str, Any]
    renderer: Renderer = dataclasses.field(repr=False)
    group_size: int = 8
    base_url: str | None = None
    split: str | None = None
    system_prompt: str = ""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    secrets: Callable[[], Mapping[str, str]] | None = dataclasses.field(
        default=None, repr=False
    )
    client_factory: Callable[[], AsyncORSClient] | None = dataclasses.field(
        default=None, repr=False
    )
    max_trajectory_tokens: int | None = None
    max_generation_tokens: int | None = None

    def __post_init__(self) -> None:
        self._client: AsyncORSClient | None = None
        self._playing: list[LiveEpisode] = []
        if self.group_size < 1:
            raise InvalidRequestError("group_size must be at least 1")
        hidden = {"api_key", "client_options", "headers", "secrets"} & set(
            self.arguments
        )
        if hidden or not (self.secrets is None or callable(self.secrets)):
            raise InvalidRequestError(
                f"{', '.join(sorted(hidden)) or 'secrets'} would travel in a pickle; "
                "pass functions: secrets=, which returns the secrets, and "
                "client_factory=, which makes the client"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None, "_playing": []}

    async def make_envs(self) -> Sequence[Env]:
        """Make the environments; each opens its session when it is asked to begin.

        Raises:
            InvalidRequestError: If an argument cannot be right.
        """
        if self._client is None:
            make = self.client_factory
            self._client = make() if make is not None else connect(self.base_url)
        return [self._make_env(number) for number in range(self.group_size)]

    def _make_env(self, number: int) -> EnvFromMessageEnv:
        given = dict(self.arguments)
        if self.secrets is not None:
            given["secrets"] = self.secrets()
        assert self._client is not None  # noqa: S101 - make_envs made it
        live = LiveEpisode(
            self._client,
            self.env_name,
            self.task,
            split=self.split,
            number=number,
            **given,
        )
        self._playing.append(live)
        return EnvFromMessageEnv(
            renderer=self.renderer,
            message_env=ORSMessageEnv(live, self.renderer, self.system_prompt),
            # What an unfinished episode costs is said once, as nonterminal_reward.
            failed_parse_reward=0.0,
            context_overflow_reward=0.0,
            max_trajectory_tokens=self.max_trajectory_tokens,
            max_generation_tokens=self.max_generation_tokens,
        )

    async def compute_group_rewards(
        self, trajectory_group: list[Trajectory], env_group: Sequence[Env]
    ) -> list[tuple[float, Metrics]]:
        """Return each episode's reward and figures.

        Args:
            trajectory_group: The trajectories.
            env_group: Their environments.

        Raises:
            ORSError: If one has no reward, because of an outage.
        """
        return [
            reward_of(
                env.message_env.live,
                _REASONS.get(trajectory.stop_reason, "policy_stopped"),
            )
            for trajectory, env in zip(trajectory_group, env_group, strict=True)
        ]

    async def cleanup(self) -> None:
        """Delete every session of the group. Calling it twice is fine."""
        playing, self._playing = self._playing, []
        client, self._client = self._client, None
        ends = [live.close() for live in playing]
        for outcome in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(outcome, Exception):
                # The cookbook wants no error here: it would hide that of a rollout.
                _log.warning("a session was not closed: %s", outcome)
        if client is not None:
            await client.aclose()

    def logging_tags(self) -> list[str]:
        """Return the environment's name, by which the cookbook groups figures."""
        return [self.env_name]
