"""TorchRL drives an ORS environment through its own ``GymWrapper``: no adapter.

    pip install "ors-gym[server,torchrl]"
    python torchrl_rollout.py

With `DiscreteTools` and `ParsedText` actions and observations are tensors; text stays
text, as non-tensor data, with ``action_mode="text"`` and without the wrappers.
"""

from __future__ import annotations

import json
import re

import gymnasium as gym
import torch
from gymnasium.spaces import Box
from tensordict import NonTensorData, TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.envs import GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import OneHotCategorical, ProbabilisticActor

import ors_gym  # noqa: F401 - registers the ids
from ors_gym.wrappers import DiscreteTools, ParsedText


def make(**arguments: str) -> TransformedEnv:
    """Make an env that shows how far the number may be, and takes a number."""
    env = gym.make("ors/guess", **arguments)
    bounds = Box(1, 16, (2,), dtype="float32")
    env = DiscreteTools(ParsedText(env, r"in (\d+)\.\.(\d+)", bounds))
    return TransformedEnv(GymWrapper(env), RewardSum())


def roll_out(steps: int = 64, seed: int = 0, **arguments: str) -> TensorDictBase:
    """Play so many steps with an untrained network, one episode after the other."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    env = make(**arguments)
    env.set_seed(seed)
    network = torch.nn.Linear(2, env.action_spec.shape[-1])
    policy = ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )
    played = env.rollout(steps, policy, break_when_any_done=False)
    env.close()
    return played


def bisect(tensordict: TensorDictBase) -> TensorDictBase:
    """Answer the text with a call, as a model would."""
    low, high = re.findall(r"(\d+)\.\.(\d+)", tensordict["observation"])[-1]
    guess = {"tool": "guess", "input": {"number": (int(low) + int(high)) // 2}}
    return tensordict.set("action", NonTensorData(json.dumps(guess)))


def play_text(**arguments: str) -> TensorDictBase:
    """Play one episode, all of it in text."""
    env = GymWrapper(gym.make("ors/guess", action_mode="text", **arguments))
    env.set_seed(0)
    played = env.rollout(20, bisect)
    env.close()
    return played


if __name__ == "__main__":
    data = roll_out()
    ended = data["next", "done"].squeeze(-1)
    returns = data["next", "episode_reward"][ended]
    print(data)
    print(f"{len(returns)} episodes ended, mean reward {returns.mean():.2f}")
    text = play_text()
    for step in text:
        print(step["action"], "->", step["next", "observation"])
