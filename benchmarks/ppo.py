"""PPO learns blackjack over HTTP: ``python -m benchmarks.ppo --picture curve.png``.

Stable-Baselines3's PPO on `ors/blackjack` through `ORSVecEnv`, beside what the
reference player and a random one earn on the same tasks, which are those of another
split. It needs the extras ``sb3``, ``server`` and ``eval``; the virtual environment
that ``python -m tests.integrations.venvs training`` makes has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

import ors_gym
from benchmarks.learning import GAMES, Game, play, play_by
from ors_gym.integrations.sb3 import ORSVecEnv
from ors_gym.server import REFERENCE_PLAYERS

__all__ = ["Trained", "play_reference", "train"]

_ENVS: Final = 64
_SETTINGS: Final = {
    "n_steps": 16,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "gamma": 0.95,
    "ent_coef": 0.01,
    "device": "cpu",
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of training.

    Args:
        steps: Steps at the end of each rollout.
        means: The mean reward of the episodes that ended in it.
        after: The mean reward over the tasks of the test split.
        seconds: How long the training took.
    """

    steps: list[int]
    means: list[float]
    after: float
    seconds: float


class _Curve(BaseCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.means: list[float] = []
        self._ended: list[float] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self._ended += [info["episode"]["r"] for info in infos if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        self.steps.append(self.num_timesteps)
        self.means.append(float(np.mean(self._ended)))
        self._ended.clear()


def train(game: Game, steps: int, seed: int = 0, **settings: Any) -> Trained:
    """Train a policy.

    Args:
        game: What it learns.
        steps: How many steps it plays in all.
        seed: Of the tasks, the network and the choices.
        **settings: Of PPO, in place of these here.
    """
    torch.set_num_threads(1)
    env = VecMonitor(ORSVecEnv(game.make("train", _ENVS)))
    model = PPO("MlpPolicy", env, seed=seed, **{**_SETTINGS, **settings})
    curve = _Curve()
    start = time.perf_counter()
    model.learn(steps, callback=curve)
    seconds = time.perf_counter() - start
    env.close()

    def choose(states: Any, masks: Any) -> Any:
        del masks
        return model.predict(states, deterministic=True)[0]

    return Trained(curve.steps, curve.means, play_by(game, choose), seconds)


def play_reference(game: Game, split: str = "test") -> float:
    """Return what the reference player earns over each task of a split.

    Args:
        game: The game.
        split: The split.
    """
    env: Any = ors_gym.ORSEnv(game.name, split=split)
    totals = []
    for index in range(env.num_tasks):
        player = REFERENCE_PLAYERS[game.name]()
        text, _ = env.reset(options={"task_index": index})
        total, over = 0.0, False
        while not over:
            text, reward, *ends, _ = env.step(player(text, env.tools))
            total += reward
            over = any(ends)
        totals.append(total)
    env.close()
    return float(np.mean(totals))


def draw(
    runs: Sequence[Trained], levels: dict[str, float], picture: pathlib.Path
) -> None:
    """Draw the curves and the levels of other players.

    Args:
        runs: One for each seed.
        levels: Mean rewards by player.
        picture: The file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for seed, run in enumerate(runs):
        width = max(1, len(run.means) // 20)
        smooth = np.convolve(run.means, np.ones(width) / width, "valid")
        axes.plot(run.steps[width - 1 :], smooth, label=f"PPO, seed {seed}")
    for style, (name, level) in zip(("--", ":"), levels.items(), strict=True):
        axes.axhline(level, color="black", linestyle=style, label=name, linewidth=1)
    axes.set(xlabel="steps", ylabel="mean reward of a hand")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(picture, dpi=160)
    plt.close(figure)


def main() -> None:
    """Train with some seeds, print what they earn, and draw the curves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ppo")
    parser.add_argument("--game", choices=[*GAMES], default="blackjack")
    parser.add_argument("--steps", type=int, default=16_384, help="of each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", type=pathlib.Path, help="write the curves here")
    options = parser.parse_args()
    game = GAMES[options.game]
    levels = {"reference": play_reference(game), "random": play(game, None)}
    runs = []
    for seed in range(options.seeds):
        run = train(game, options.steps, seed)
        runs.append(run)
        rate = run.steps[-1] / run.seconds
        print(f"seed {seed}: {run.steps[-1]} steps, {run.seconds:.0f} s,", end=" ")
        print(f"{rate:.0f} steps/s, {run.after:+.3f} on 200 unseen tasks", flush=True)
    for name, level in levels.items():
        print(f"{name}: {level:+.3f} on the same tasks")
    if options.picture:
        draw(runs, levels, options.picture)


if __name__ == "__main__":
    main()
