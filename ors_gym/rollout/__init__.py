"""Rollouts: one episode, a group of them, and what is kept of each.

A policy is called with the `Episode` so far and returns an action, a list of actions, a
`Turn`, or None to give up. `TokenPolicy` makes one of an engine that samples token ids.
Everything that plays episodes (`run_episode`, `run_group`,
`ors_gym.evaluation`, the adapters of training frameworks) goes by the same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ors_gym.rollout._chat_policy import ChatPolicy
from ors_gym.rollout._clients import connect
from ors_gym.rollout._differences import Difference
from ors_gym.rollout._episode import (
    Attempt,
    Episode,
    Step,
    Stop,
    StopReason,
    Turn,
)
from ors_gym.rollout._episode_rules import RewardReduction, Rules, reduce_rewards
from ors_gym.rollout._groups import Group
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.rollout._policies import Policy, random_policy, reference_policy
from ors_gym.rollout._renderers import (
    Parsed,
    Rendered,
    Renderer,
    TemplateRenderer,
    as_renderer,
    check_prefix_preserving,
)
from ors_gym.rollout._replay import (
    Replay,
    RevivedEpisode,
    replay,
    replay_async,
    revive,
    revive_async,
)
from ors_gym.rollout._run_episode import (
    EpisodeRunner,
    run_episode,
    run_episode_async,
    run_group,
)
from ors_gym.rollout._streams import GroupStream, stream_groups
from ors_gym.rollout._token_policy import TokenPolicy, run_token_episode
from ors_gym.rollout._tokens import Generated, TokenSequence, TurnTokens

if TYPE_CHECKING:
    from ors_gym.agents import CommandPolicy

__all__ = [
    "Attempt",
    "ChatPolicy",
    "CommandPolicy",
    "Difference",
    "Episode",
    "EpisodeRunner",
    "Generated",
    "Group",
    "GroupStream",
    "LiveEpisode",
    "Parsed",
    "Policy",
    "Rendered",
    "Renderer",
    "Replay",
    "RevivedEpisode",
    "RewardReduction",
    "Rules",
    "Step",
    "Stop",
    "StopReason",
    "TemplateRenderer",
    "TokenPolicy",
    "TokenSequence",
    "Turn",
    "TurnTokens",
    "as_renderer",
    "check_prefix_preserving",
    "connect",
    "random_policy",
    "reduce_rewards",
    "reference_policy",
    "replay",
    "replay_async",
    "revive",
    "revive_async",
    "run_episode",
    "run_episode_async",
    "run_group",
    "run_token_episode",
    "stream_groups",
]


def __getattr__(name: str) -> Any:
    if name == "CommandPolicy":
        # It stands on the rollouts, and needs an extra.
        from ors_gym.agents import CommandPolicy  # noqa: PLC0415

        return CommandPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
