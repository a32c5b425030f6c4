"""Rollouts: one episode, a group of them, and what is kept of each.

A policy is called with the `Episode` so far and returns an action, a list of actions, a
`Turn`, or None to give up. Everything that plays episodes (`run_episode`, `run_group`,
`ors_gym.evaluation`, the adapters of training frameworks) goes by the same rules.
"""

from __future__ import annotations

from ors_gym.rollout.chat import ChatPolicy
from ors_gym.rollout.episode import Episode, StopReason
from ors_gym.rollout.group import run_group
from ors_gym.rollout.live import LiveEpisode, connect
from ors_gym.rollout.play import Rules
from ors_gym.rollout.policies import Policy, random_policy, reference_policy
from ors_gym.rollout.replaying import Difference, Replay, replay, replay_async
from ors_gym.rollout.reward import RewardReduction, reduce_rewards
from ors_gym.rollout.runner import EpisodeRunner
from ors_gym.rollout.single import run_episode, run_episode_async
from ors_gym.rollout.turn import Step, Turn

__all__ = [
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
