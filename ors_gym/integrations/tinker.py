"""tinker-cookbook: groups of rollouts of one task of any ORS server.

    builder = ORSGroupBuilder("math", 0, renderer=renderer, group_size=8)
    group = await do_group_rollout(builder, policy, RetryOnFailure())

The whole episode is rewarded once, in ``compute_group_rewards``, also where the
cookbook cut it off. An outage raises, so that a strategy such as ``RetryOnFailure``
plays anew. Tested with tinker-cookbook 0.5.8.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import InvalidRequestError, MissingExtraError
from ors_gym.formats import to_openai_tools
from ors_gym.formats.tool_prompt import describe_tools
from ors_gym.integrations.tinker_tools import (
    ORSTool,
    answer_of,
    ors_reward,
    ors_tools,
    reward_of,
    to_message,
)
from ors_gym.rollout import StopReason
from ors_gym.rollout.live import LiveEpisode, connect
from ors_gym.types import JSONObject

try:
    from tinker_cookbook.renderers import Renderer
    from tinker_cookbook.renderers.base import Message
    from tinker_cookbook.rl.message_env import (
        EnvFromMessageEnv,
        MessageEnv,
        MessageStepResult,
    )
    from tinker_cookbook.rl.types import Env, EnvGroupBuilder, Metrics, Trajectory
except ImportError as error:
    raise MissingExtraError(
        "tinker-cookbook is not installed; install it with: "
        'pip install "ors-gym[tinker]"'
    ) from error

__all__ = ["ORSGroupBuilder", "ORSMessageEnv", "ORSTool", "ors_reward", "ors_tools"]

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
