"""A maze, and what is seen on a way through it."""

import dataclasses
from typing import Any

import gymnasium as gym

SEED = 5


def move(direction: str) -> Any:
    return {"tool": "move", "input": {"direction": direction}}


# From the top left: a bump, then ways that may be free.
ACTIONS = [move(d) for d in ("up", "right", "down", "right", "down", "left")]
STEPS = len(ACTIONS)


def make(**arguments: Any) -> Any:
    return gym.make("ors/maze", **arguments)


@dataclasses.dataclass
class Played:
    """What an env showed: the reset's observation and info, and each step."""

    observations: list[Any]
    rewards: list[float]
    ends: list[tuple[bool, bool]]
    infos: list[dict[str, Any]]


def play(env: Any, actions: list[Any]) -> Played:
    observation, info = env.reset(seed=SEED)
    assert observation in env.observation_space
    played = Played([observation], [], [], [info])
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation in env.observation_space
        played.observations.append(observation)
        played.rewards.append(reward)
        played.ends.append((terminated, truncated))
        played.infos.append(info)
        if terminated or truncated:
            break
    return played
