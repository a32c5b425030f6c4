"""The tinker cookbook: groups of rollouts of one task, for its RL trainer.

`ORSGroupBuilder` is all that a trainer needs; its environments are `ORSMessageEnv`.
`ors_messages`, `ors_tools` and `ors_reward` serve the cookbook's own
``build_agent_tool_env`` instead.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import TaskChoice
from ors_gym.errors import EpisodeOverError, InvalidRequestError, ORSError, needs_extra
from ors_gym.formats import describe_tools, to_openai_tools
from ors_gym.formats._messages import (
    called_names,
    join_system_messages,
    with_calls_as_text,
)
from ors_gym.integrations import (
    ATTEMPTS,
    EPISODE_SECRETS,
    ClientFactory,
    make_client,
)
from ors_gym.rollout import StopReason, Turn
from ors_gym.rollout._episode import not_run
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.types import JSONObject

__all__ = [
    "ORSGroupBuilder",
    "ORSMessageEnv",
    "ORSTool",
    "ors_messages",
    "ors_reward",
    "ors_tools",
]

with needs_extra("tinker", "ors_gym.integrations.tinker"):
    from tinker_cookbook.renderers import Renderer
    from tinker_cookbook.renderers.base import Message, ToolCall, get_text_content
    from tinker_cookbook.rl.message_env import (
        EnvFromMessageEnv,
        MessageEnv,
        MessageStepResult,
    )
    from tinker_cookbook.rl.types import Env, EnvGroupBuilder, Metrics, Trajectory
    from tinker_cookbook.tool_use.types import Tool, ToolInput, ToolResult

_log = logging.getLogger(__name__)

# Our names of the cookbook's stop reasons; any other is "policy_stopped".
_REASONS: Final[dict[str | None, StopReason]] = {
    "max_turns": "max_turns",
    "max_tokens": "max_tokens",
    "max_sampled_tokens": "max_tokens",
    "context_overflow": "max_tokens",
    "rollout_timeout": "deadline",
}


@dataclasses.dataclass
class ORSGroupBuilder(EnvGroupBuilder):
    """Builds the environments of a group: rollouts of one task, each on a session.

    It can be pickled; a copy has no sessions and no connections. A pickle holds no
    secrets: a function gives them where the group is played.

    Args:
        env_name: The environment's name on the server.
        task: The task's index in the split, a pair of split and index, or the task
            itself.
        renderer: The renderer of the model, made by the cookbook's ``get_renderer``.
        group_size: The number of rollouts.
        base_url: The server's address, as for `ORSEnv`.
        split: The split of an index.
        system_prompt: The beginning of each conversation.
        arguments: More arguments of `LiveEpisode`: ``max_turns``, ``attempts`` (3),
            ``reward_reduction``, ``nonterminal_reward``, ``call_timeout``, ...
        secrets: Returns the secrets of the environment.
        client_factory: Makes the client, where more than an address is needed. A key
            may also be in ``ORS_API_KEY``.
        max_trajectory_tokens: The cookbook's limit on a conversation.
        max_generation_tokens: The cookbook's limit on a turn; it tells when the
            conversation is full.

    Raises:
        InvalidRequestError: If an argument is wrong, or is secret.

    Example:
        >>> import asyncio
        >>> from tinker_cookbook.renderers import get_renderer
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        >>> renderer = get_renderer("role_colon", letters)
        >>> group = ORSGroupBuilder("math", 3, renderer, group_size=2)
        >>> async def count():
        ...     envs = await group.make_envs()
        ...     await group.cleanup()
        ...     return len(envs)
        >>> asyncio.run(count())
        2
    """

    env_name: str
    task: TaskChoice
    renderer: Renderer = dataclasses.field(repr=False)
    group_size: int = 8
    base_url: str | None = None
    split: str | None = None
    system_prompt: str = ""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    secrets: Callable[[], Mapping[str, str]] | None = dataclasses.field(
        default=None, repr=False
    )
    client_factory: ClientFactory | None = dataclasses.field(default=None, repr=False)
    max_trajectory_tokens: int | None = None
    max_generation_tokens: int | None = None

    def __post_init__(self) -> None:
        self._client: AsyncORSClient | None = None
        self._playing: list[LiveEpisode] = []
        if self.group_size < 1:
            raise InvalidRequestError("group_size must be at least 1")
        hidden = EPISODE_SECRETS & self.arguments.keys()
        if hidden or not (self.secrets is None or callable(self.secrets)):
            raise InvalidRequestError(
                f"{', '.join(sorted(hidden)) or 'secrets'} would travel in a pickle; "
                "pass functions: secrets=, which returns the secrets, and "
                "client_factory=, which makes the client"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None, "_playing": []}

    async def make_envs(self) -> Sequence[Env]:
        """Make the environments. Each opens its session when its episode begins.

        Raises:
            InvalidRequestError: If an argument is wrong.
        """
        if self._client is None:
            self._client = make_client(self.base_url, self.client_factory)
        return [self._make_env(number) for number in range(self.group_size)]

    def _make_env(self, number: int) -> EnvFromMessageEnv:
        given = {"attempts": ATTEMPTS, **self.arguments}
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
            # nonterminal_reward already says what an unfinished episode costs.
            failed_parse_reward=0.0,
            context_overflow_reward=0.0,
            max_trajectory_tokens=self.max_trajectory_tokens,
            max_generation_tokens=self.max_generation_tokens,
        )

    async def compute_group_rewards(
        self, trajectory_group: list[Trajectory], env_group: Sequence[Env]
    ) -> list[tuple[float, Metrics]]:
        """Return what is left of each episode's reward, and its metrics.

        What its turns were paid is in the transitions already. What is left is
        ``nonterminal_reward``, and the reward of a turn that the cookbook cut off.

        Raises:
            ORSError: If an outage left an episode without a reward.
        """
        return [
            _end(trajectory, env.message_env.live)
            for trajectory, env in zip(trajectory_group, env_group, strict=True)
        ]

    async def cleanup(self) -> None:
        """Delete every session of the group. Calling it twice is fine."""
        playing, self._playing = self._playing, []
        client, self._client = self._client, None
        ends = [live.close() for live in playing]
        for outcome in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(outcome, Exception):
                # An error here would hide the error of a rollout.
                _log.warning("a session was not closed: %s", outcome)
        if client is not None:
            await client.aclose()

    def logging_tags(self) -> list[str]:
        """Return the environment's name: the cookbook groups its metrics by it."""
        return [self.env_name]


class ORSMessageEnv(MessageEnv):
    """One episode, message by message.

    Args:
        live: The episode, which has not started.
        renderer: Describes the tools to the model, if it has a way to do so.
        system_prompt: The beginning of the conversation.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import connect
        >>> from tinker_cookbook.renderers import get_renderer
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        >>> renderer = get_renderer("role_colon", letters)
        >>> async def play():
        ...     async with connect() as client, LiveEpisode(client, "math", 0) as live:
        ...         return await ORSMessageEnv(live, renderer).initial_observation()
        >>> [message["role"] for message in asyncio.run(play())]
        ['system', 'user']
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
            As `ors_messages`.

        Raises:
            ORSError: If the episode cannot be set up.
        """
        await self.live.start()
        self._history = ors_messages(self.live, self._renderer, self._system_prompt)
        return list(self._history)

    async def step(self, message: Message) -> MessageStepResult:
        """Play one turn.

        Args:
            message: The assistant's message.

        Returns:
            The conversation, what the turn added to the episode's reward, and whether
            the episode is over.

        Raises:
            ORSError: For an outage.
        """
        self._history.append(message)
        told = await self.live.take(_answer_of(message))
        names = called_names(self.live.episode.messages())
        self._history += [_to_message(one, names) for one in told]
        return MessageStepResult(
            reward=self.live.collect_reward(),
            episode_done=self.live.ended,
            next_messages=list(self._history),
        )


def _end(trajectory: Trajectory, live: LiveEpisode) -> tuple[float, Metrics]:
    reason = _REASONS.get(trajectory.stop_reason, "policy_stopped")
    reward, metrics = _reward_of(live, reason)
    # The cookbook leaves the reward of a turn out that it cuts off. What it pays itself
    # for a turn that could not be parsed comes on top of the episode's reward.
    paid = math.fsum(
        one.reward for one in trajectory.transitions if "parse_error" not in one.metrics
    )
    return reward - paid, metrics


def ors_messages(
    live: LiveEpisode, renderer: Renderer, system_prompt: str = ""
) -> list[Message]:
    """Return the beginning of an episode's conversation.

    Args:
        live: The episode, which has started.
        renderer: Describes the tools to the model, if it has a way to do so.
        system_prompt: The beginning of the conversation.

    Returns:
        One system message, with ``system_prompt``, that of the environment and the
        tools; then the environment's prompt.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import connect
        >>> from tinker_cookbook.renderers import get_renderer
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        >>> renderer = get_renderer("role_colon", letters)
        >>> async def play():
        ...     async with connect() as client, LiveEpisode(client, "math", 0) as live:
        ...         await live.start()
        ...         return ors_messages(live, renderer, "Be brief.")
        >>> [message["role"] for message in asyncio.run(play())]
        ['system', 'user']
    """
    opening = live.episode.messages()
    own = [{"role": "system", "content": system_prompt}]
    system, *rest = join_system_messages(own, opening)
    names = called_names(rest)
    tools = live.episode.tools
    specs = [tool["function"] for tool in to_openai_tools(tools)]
    try:
        told: list[Message] = renderer.create_conversation_prefix_with_tools(
            specs, system["content"]
        )
    except NotImplementedError:
        words = list(filter(None, (system["content"], describe_tools(tools))))
        told = [Message(role="system", content="\n\n".join(words))] if words else []
        rest = [with_calls_as_text(message) for message in rest]
    return [*told, *(_to_message(one, names) for one in rest)]


def ors_tools(live: LiveEpisode) -> list[ORSTool]:
    """Return the tools of an episode, for ``build_agent_tool_env``.

    Args:
        live: The episode, which has started.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import connect
        >>> async def play():
        ...     async with connect() as client, LiveEpisode(client, "math", 0) as live:
        ...         await live.start()
        ...         return ors_tools(live)
        >>> [tool.name for tool in asyncio.run(play())]
        ['submit']
    """
    functions = [tool["function"] for tool in to_openai_tools(live.episode.tools)]
    return [
        ORSTool(live, function["name"], function["description"], function["parameters"])
        for function in functions
    ]


class ORSTool(Tool):
    """A tool of a live episode, as the cookbook's own environments use them.

    Args:
        live: The episode, which has started.
        name: The name that the model knows.
        description: What the tool does.
        parameters_schema: The JSON Schema of its arguments.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import connect
        >>> async def play():
        ...     async with connect() as client, LiveEpisode(client, "math", 0) as live:
        ...         await live.start()
        ...         return ors_tools(live)[0]
        >>> asyncio.run(play()).description
        'Submit the answer; this ends the episode.'
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
        """Call the tool. Calls of one message run one after another, in their order.

        Args:
            input: The call's arguments and id.

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
        answered = [one["tool_call_id"] for one in told if one["role"] == "tool"]
        names = dict.fromkeys(answered, self.name)
        messages = [_to_message(one, names) for one in told]
        return ToolResult(messages=messages, should_stop=self._live.ended)


def ors_reward(
    live: LiveEpisode,
) -> Callable[[list[Message]], Awaitable[tuple[float, dict[str, float]]]]:
    """Make the ``reward_fn`` of an episode, for ``build_agent_tool_env``.

    Args:
        live: The episode.

    Returns:
        A function that ends the episode and returns its reward. It raises an
        `ORSError` if an outage left the episode without a reward.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import connect
        >>> async def play():
        ...     async with connect() as client, LiveEpisode(client, "math", 0) as live:
        ...         await live.start()
        ...         return await ors_reward(live)([])
        >>> reward, figures = asyncio.run(play())
        >>> reward
        0.0
    """

    async def reward(_: list[Message]) -> tuple[float, dict[str, float]]:
        return _reward_of(live, "policy_stopped")

    return reward


def _reward_of(live: LiveEpisode, reason: StopReason) -> tuple[float, Metrics]:
    """End an episode, if it has not ended, and return its reward and metrics."""
    reward = live.stop(reason)
    if reward is None:
        raise live.episode.cause or ORSError(
            f"the episode has no reward: {live.episode.error or 'it did not start'}"
        )
    figures = live.episode.metrics().items()
    return reward, {f"ors/{name}": value for name, value in figures}


def _answer_of(message: Message) -> Any:
    """Convert an assistant's message to what `LiveEpisode.take` takes."""
    text = get_text_content(message)
    actions = [call.model_dump() for call in message.get("tool_calls") or ()]
    # Calls that the cookbook could not read: our parser tells the model what is wrong.
    actions += [call.raw_text for call in message.get("unparsed_tool_calls") or ()]
    return Turn(actions, message=text) if actions else text


def _to_message(message: JSONObject, names: Mapping[str, str]) -> Message:
    """Convert a chat message to the cookbook's, with the tool's name in an answer.

    ``names`` are those of the tools, by the ids of their calls.
    """
    content = _content(message.get("content"))
    if thoughts := message.get("reasoning_content"):
        said = [{"type": "text", "text": content}] if content else []
        content = [{"type": "thinking", "thinking": thoughts}, *said]
    told = Message(role=message["role"], content=content)
    if message["role"] == "tool":
        told["tool_call_id"] = message["tool_call_id"]
        told["name"] = names.get(message["tool_call_id"], "")
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
