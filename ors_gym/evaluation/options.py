"""The options of an evaluation, listed once for both functions that take them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict

from ors_gym.evaluation.records import Success
from ors_gym.rollout import Episode, Policy, RewardReduction

__all__ = ["OWN_OPTIONS", "Options"]


class Options(TypedDict, total=False):
    """The keyword arguments of `evaluate` and `parallel_evaluate`.

    Those from ``secrets`` on are `ORSEnv`'s.
    """

    policy_factory: Callable[[], Policy] | None
    """Makes a policy for each episode, in place of ``policy``."""
    split: str | None
    """The split of indexes; ``train`` if None and there is one, else the only one."""
    episodes_per_task: int
    """How often each task is played; 1."""
    max_turns: int | None
    """Turns after which an episode ends."""
    deadline: float | None
    """Seconds after which an episode ends, set-up included."""
    seed: int | None
    """``episode.seed`` is this plus the episode's number."""
    on_plain_text: Literal["nudge", "stop", "submit"]
    """What text without a tool call leads to, as for `Rules`; ``nudge``."""
    reward_reduction: RewardReduction
    """How the rewards of an episode's steps become one; ``sum``."""
    nonterminal_reward: float
    """Added where the server did not finish the episode; 0."""
    success: Success
    """A threshold of the reward, or a function of the `Episode`; finished with a
    reward above 0 if None."""
    output: str | os.PathLike[str] | None
    """The path of a JSON-lines file that each episode is appended to. The same call
    again plays only what is missing or has no outcome; other settings are refused."""
    policy_name: str | None
    """For that file; the policy's own name if None."""
    on_episode: Callable[[Episode], Any] | None
    """Called with each episode that ended; may be async."""
    progress: bool | None
    """Whether a bar is shown; if None, where tqdm is installed."""
    engine: Literal["local", "ray"]
    """Where episodes are played: in this process, or by the actors of a Ray cluster."""
    actors: int | None
    """How many processes play with ``engine="ray"``; one per CPU of it if None."""
    actor_options: Mapping[str, Any] | None
    """What each of them asks Ray for, as ``Dataset.map_batches`` takes it:
    ``num_cpus``, ``num_gpus``, ``memory``, ``runtime_env``, ..."""

    secrets: Mapping[str, str] | None
    call_timeout: float
    setup_timeout: float
    max_episode_steps: int | None
    invalid_action_reward: float
    on_tool_error: Literal["observe", "raise", "truncate"]
    observation_mode: Literal["text", "dict"]
    create_options: Mapping[str, Any] | None
    session_options: Mapping[str, Any] | None


OWN_OPTIONS: Final = (
    "policy_factory",
    "split",
    "episodes_per_task",
    "seed",
    "success",
    "output",
    "policy_name",
    "on_episode",
    "progress",
    "engine",
    "actors",
    "actor_options",
)
"""Those that are neither a rule of episodes nor an argument of the env."""
