"""REINFORCE in numpy: one table learns to add, over HTTP.

    pip install "ors-gym[server]"
    python reinforce.py

The environment is served from this very file: a sum, one tool, one call, and a reward
of 1 for the right answer. The policy is a softmax over the tool calls for each sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ors
from gymnasium.spaces import MultiDiscrete
from pydantic import BaseModel, Field

from ors_gym import ORSVectorEnv
from ors_gym.server import serve
from ors_gym.wrappers.vector import DiscreteTools, ParsedText

SIDE = 4
"""Sums are of two numbers below this."""


class Answer(BaseModel):
    """The input of ``submit``."""

    answer: int = Field(ge=0, le=2 * (SIDE - 1))


class Sums(ors.Environment):
    """One sum a task."""

    @classmethod
    def list_splits(cls) -> list[str]:
        """Return the one split."""
        return ["train"]

    @classmethod
    def list_tasks(cls, split: str) -> list[Any]:
        """Return every sum."""
        del split
        return [{"a": a, "b": b} for a in range(SIDE) for b in range(SIDE)]

    def get_prompt(self) -> list[ors.TextBlock]:
        """Ask."""
        return [
            ors.TextBlock(text=f"{self.task_spec['a']} + {self.task_spec['b']} = ?")
        ]

    @ors.tool
    def submit(self, params: Answer) -> ors.ToolOutput:
        """Answer the sum."""
        right = params.answer == self.task_spec["a"] + self.task_spec["b"]
        text = "Right." if right else "Wrong."
        blocks = [ors.TextBlock(text=text)]
        return ors.ToolOutput(blocks=blocks, reward=float(right), finished=True)


def learn(episodes: int = 1500, seed: int = 0) -> list[float]:
    """Learn, and return the reward of each episode in order."""
    random = np.random.default_rng(seed)
    rewards: list[float] = []
    with serve(Sums) as base_url:
        envs: Any = ORSVectorEnv(
            "sums", base_url, num_envs=SIDE * SIDE, autoreset_mode="SameStep"
        )
        space = MultiDiscrete([SIDE, SIDE])
        envs = DiscreteTools(ParsedText(envs, r"(\d+) \+ (\d+)", space))
        logits = np.zeros((SIDE, SIDE, envs.single_action_space.n))
        baseline = np.zeros((SIDE, SIDE))
        states, _ = envs.reset(seed=seed)
        while len(rewards) < episodes:
            a, b = states.T
            chances = np.exp(logits[a, b])
            chances /= chances.sum(axis=1, keepdims=True)
            actions = np.array([random.choice(len(row), p=row) for row in chances])
            states, earned, _, truncated, _ = envs.step(actions)
            # An outage truncates an episode: there is nothing to learn from it.
            for i in np.flatnonzero(~truncated):
                advantage = earned[i] - baseline[a[i], b[i]]
                gradient = -chances[i]
                gradient[actions[i]] += 1.0
                logits[a[i], b[i]] += 4.0 * advantage * gradient
                baseline[a[i], b[i]] += 0.1 * advantage
                rewards.append(float(earned[i]))
        envs.close()
    return rewards


if __name__ == "__main__":
    for tenth, part in enumerate(np.array_split(learn(), 10), start=1):
        bar = "#" * round(40 * part.mean())
        print(f"{tenth * 10:3} %  mean reward {part.mean():.2f}  {bar}")
