"""Rollouts: one episode, a group of them, and what is kept of each.

A policy is called with the `Episode` so far and returns an action, a list of actions, a
`Turn`, or None to give up. Everything that plays episodes (`run_episode`, `run_group`,
`ors_gym.evaluation`, the adapters of training frameworks) goes by the same rules.
"""

from __future__ import annotations

from ors_gym.rollout._chat_policy import ChatPolicy
from ors_gym.rollout._clients import connect
from ors_gym.rollout._episode import Attempt, Episode, Step, StopReason, Turn
from ors_gym.rollout._live import LiveEpisode
from ors_gym.rollout._policies import Policy, random_policy, reference_policy
from ors_gym.rollout._replay import Difference, Replay, replay, replay_async
from ors_gym.rollout._rules import RewardReduction, Rules, reduce_rewards
from ors_gym.rollout._run import (
    EpisodeRunner,
    run_episode,
    run_episode_async,
    run_group,
)

__all__ = [
    "Attempt",
    "ChatPolicy",
    "Difference",
    "Episode",
    "EpisodeRunner",
    "LiveEpisode",
    "Policy",
    "Replay",
    "RewardReduction",
    "Rules",
    "Step",
    "StopReason",
    "Turn",
    "connect",
    "random_policy",
    "reduce_rewards",
    "reference_policy",
    "replay",
    "replay_async",
    "run_episode",
    "run_episode_async",
    "run_group",
]
