"""PPO in one file, in the manner of CleanRL, over a vector env of ORS sessions.

    pip install "ors-gym[server]" torch
    python cleanrl_ppo.py

Nothing here knows of ORS but the three lines that make the envs. With ``SameStep``
autoreset, ``infos["final_obs"]`` is the state that an ended episode was left in.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn
from torch.distributions import Categorical

import ors_gym  # noqa: F401 - registers the ids
from ors_gym.wrappers.vector import DiscreteTools, ParsedText

NUM_ENVS, NUM_STEPS, EPOCHS, BATCH = 16, 32, 10, 128
GAMMA, LAMBDA, CLIP, ENTROPY, RATE = 0.95, 0.95, 0.2, 0.01, 4e-3


class Agent(nn.Module):
    """A policy and a value."""

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.states = states
        self.actor = network(2 * states, actions, 0.01)
        self.critic = network(2 * states, 1, 1.0)

    def forward(self, seen: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        """Return what to do, and what the state is worth."""
        marks = nn.functional.one_hot(seen.long() - 1, self.states).flatten(-2).float()
        return Categorical(logits=self.actor(marks)), self.critic(marks).squeeze(-1)


def network(inputs: int, outputs: int, gain: float) -> nn.Module:
    """Make two layers; a small gain in the last one makes it begin undecided."""
    layers = nn.Linear(inputs, 64), nn.Linear(64, outputs)
    for layer, scale in zip(layers, (2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])


def make_envs(**arguments: str) -> gym.vector.VectorEnv:
    """Make the envs: numbers in, numbers out."""
    envs = gym.make_vec("ors/guess", NUM_ENVS, autoreset_mode="SameStep", **arguments)
    bounds = Box(1, 16, (2,), dtype=np.float32)
    return DiscreteTools(ParsedText(envs, r"in (\d+)\.\.(\d+)", bounds))


def train(updates: int = 16, seed: int = 0, **arguments: str) -> list[float]:
    """Train, and return the mean reward of the episodes that ended in each update."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    envs = make_envs(**arguments)
    agent = Agent(16, int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), RATE)
    shape = (NUM_STEPS, NUM_ENVS)
    states = torch.zeros((*shape, 2))
    actions, logs, values, following = (torch.zeros(shape) for _ in range(4))
    rewards, ends, deaths = (torch.zeros(shape) for _ in range(3))
    state = torch.as_tensor(envs.reset(seed=seed)[0])
    totals, curve = np.zeros(NUM_ENVS), []
    for _ in range(updates):
        returns: list[float] = []
        for step in range(NUM_STEPS):
            with torch.no_grad():
                policy, value = agent(state)
            action = policy.sample()
            states[step], actions[step], values[step] = state, action, value
            logs[step] = policy.log_prob(action)
            seen, reward, dead, cut, infos = envs.step(action.numpy())
            over = dead | cut
            totals += reward
            returns += totals[over].tolist()
            totals[over] = 0.0
            last = np.where(over[:, None], 0, seen)
            for i in np.flatnonzero(over):
                last[i] = infos["final_obs"][i]
            with torch.no_grad():
                following[step] = agent(torch.as_tensor(last))[1]
            rewards[step] = torch.as_tensor(reward)
            ends[step], deaths[step] = torch.as_tensor(over), torch.as_tensor(dead)
            state = torch.as_tensor(seen)
        curve.append(float(np.mean(returns)))
        # An episode that was cut off, say by an outage, goes on in the value.
        errors = rewards + GAMMA * following * (1 - deaths) - values
        advantages, trace = torch.zeros(shape), torch.zeros(NUM_ENVS)
        for step in reversed(range(NUM_STEPS)):
            trace = errors[step] + GAMMA * LAMBDA * (1 - ends[step]) * trace
            advantages[step] = trace
        data = states.flatten(0, 1), actions.flatten(), logs.flatten()
        update(agent, optimizer, *data, advantages.flatten(), values.flatten())
    envs.close()
    return curve


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    states: torch.Tensor,
    actions: torch.Tensor,
    logs: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """Fit the agent to what was played."""
    targets = advantages + values
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(states)).split(BATCH):
            policy, value = agent(states[rows])
            ratio = (policy.log_prob(actions[rows]) - logs[rows]).exp()
            gain = advantages[rows]
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            loss = -torch.min(ratio * gain, clipped * gain).mean()
            loss += 0.5 * (value - targets[rows]).square().mean()
            loss -= ENTROPY * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


if __name__ == "__main__":
    for number, mean in enumerate(train(), start=1):
        steps = number * NUM_STEPS * NUM_ENVS
        print(f"{steps:6} steps  mean reward {mean:+.2f}")
