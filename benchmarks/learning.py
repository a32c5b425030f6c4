"""A table learns to play over HTTP: ``python -m benchmarks.learning``.

Q-learning with numpy alone, through `DiscreteTools` and `ParsedText`, against the
embedded server. Beside the curve of what it earns while it learns stands what it earns
on tasks of another split, and what a random player earns on the same ones. Everything
is seeded: the curve is the same on every machine.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from gymnasium.spaces import MultiDiscrete
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from ors_gym.vector import ORSVectorEnv
from ors_gym.wrappers import vector

__all__ = ["GAMES", "Game", "Learned", "learn", "main", "play", "play_by"]

_ENVS: Final = 32
_HAND: Final = re.compile(r"\((soft )?(\d+)\)\. The dealer shows (ace|\d+)")


def read_hand(text: str) -> tuple[int, int, int] | None:
    """Return whether an ace counts as 11, the total, and the dealer's card."""
    match = _HAND.search(text)
    if match is None:
        return None
    soft, total, dealer = match.groups()
    return bool(soft), int(total), 1 if dealer == "ace" else int(dealer)


@dataclasses.dataclass(frozen=True)
class Game:
    """An environment as a table sees it.

    Args:
        name: The bundled environment.
        parse: For `ParsedText`.
        space: The states.
        episodes: How many are played to learn.
    """

    name: str
    parse: str | Callable[[str], Any]
    space: MultiDiscrete
    episodes: int

    def make(self, split: str, envs: int = _ENVS) -> Any:
        """Make a vector env of numbers only."""
        made = ORSVectorEnv(
            self.name,
            num_envs=envs,
            split=split,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        return vector.DiscreteTools(vector.ParsedText(made, self.parse, self.space))


GAMES: Final = {
    game.name: game
    for game in (
        Game("blackjack", read_hand, MultiDiscrete([2, 22, 11]), 2000),
        Game("guess", r"in (\d+)\.\.(\d+)", MultiDiscrete([17, 17]), 1000),
    )
}


@dataclasses.dataclass(frozen=True)
class Learned:
    """What came of learning.

    Args:
        table: The value of each action in each state; -1 where it was never tried.
        curve: Mean rewards per episode, over consecutive tenths of the episodes.
        steps: Steps that were taken.
        seconds: How long that took.
    """

    table: NDArray[np.float64]
    curve: list[float]
    steps: int
    seconds: float


class Table:
    """Q-learning: the mean of what was seen, for each state and action.

    Args:
        states: The states.
        actions: The number of actions.
        seed: Of the choices.
    """

    def __init__(self, states: MultiDiscrete, actions: int, seed: int) -> None:
        shape = (*states.nvec, actions)
        # Hope makes it try everything once, too much of it keeps it from settling.
        self.values = np.full(shape, 0.5)
        self.counts = np.zeros(shape, np.int64)
        self.random = np.random.default_rng(seed)

    def choose(self, states: Any, masks: Any, explore: float) -> NDArray[np.int64]:
        """Choose an action that the mask allows in each state."""
        allowed = masks.astype(bool)
        noise = self.random.random(allowed.shape)
        values = self.values[tuple(states.T)] + 1e-6 * noise
        drawn = self.random.random(len(states)) < explore
        values[drawn] = noise[drawn]
        chosen: NDArray[np.int64] = np.where(allowed, values, -np.inf).argmax(axis=1)
        return chosen

    def update(self, states: Any, actions: Any, targets: Any) -> None:
        """Move the values towards what followed."""
        for state, action, target in zip(states, actions, targets, strict=True):
            place = (*state, action)
            self.counts[place] += 1
            rate = max(1.0 / self.counts[place], 0.05)
            self.values[place] += rate * (target - self.values[place])


def learn(game: Game, seed: int = 0) -> Learned:
    """Let a table learn a game.

    Args:
        game: The game.
        seed: Of the tasks and of the choices.
    """
    envs = game.make("train")
    table = Table(game.space, envs.single_action_space.n, seed)
    states, infos = envs.reset(seed=seed)
    totals: list[float] = []
    running = np.zeros(envs.num_envs)
    steps = 0
    start = time.perf_counter()
    while len(totals) < game.episodes:
        explore = 0.3 * max(0.0, 1 - 1.25 * len(totals) / game.episodes)
        actions = table.choose(states, infos["action_mask"], explore)
        following, rewards, terminated, truncated, infos = envs.step(actions)
        future = table.values[tuple(following.T)].max(axis=1)
        targets = rewards + np.where(terminated, 0.0, future)
        table.update(states[~truncated], actions[~truncated], targets[~truncated])
        running += rewards
        over = terminated | truncated
        totals += running[over].tolist()
        running[over] = 0.0
        states = following
        steps += envs.num_envs
    seconds = time.perf_counter() - start
    envs.close()
    parts = np.array_split(np.array(totals[: game.episodes]), 10)
    tried = np.where(table.counts > 0, table.values, -1.0)
    return Learned(tried, [float(p.mean()) for p in parts], steps, seconds)


def play(game: Game, values: NDArray[np.float64] | None, split: str = "test") -> float:
    """Return the mean reward of an episode over each task of a split.

    Args:
        game: The game.
        values: The table to play by; None plays at random.
        split: The split, which has 200 tasks.
    """
    player: Table | None = None

    def choose(states: Any, masks: Any) -> NDArray[np.int64]:
        nonlocal player
        if player is None:
            player = Table(game.space, masks.shape[1], seed=1)
            if values is not None:
                player.values = values
        return player.choose(states, masks, explore=float(values is None))

    return play_by(game, choose, split)


def play_by(
    game: Game, choose: Callable[[Any, Any], Any], split: str = "test"
) -> float:
    """Return the mean reward of an episode over each task of a split.

    Args:
        game: The game.
        choose: Chooses actions for states and masks.
        split: The split, which has 200 tasks.
    """
    envs = game.make(split, envs=25)
    states, infos = envs.reset(seed=0)
    totals = np.zeros((envs.num_envs, 8))
    played = np.zeros(envs.num_envs, np.int64)
    while (played < totals.shape[1]).any():
        actions = choose(states, infos["action_mask"])
        states, rewards, terminated, truncated, infos = envs.step(actions)
        for i in np.flatnonzero(played < totals.shape[1]):
            totals[i, played[i]] += rewards[i]
        played += terminated | truncated
    envs.close()
    return float(totals.mean())


def main() -> None:
    """Print the curves."""
    for game in GAMES.values():
        learned = learn(game)
        print(f"{game.name}: {game.episodes} episodes, {learned.steps} steps,", end=" ")
        print(f"{learned.seconds:.1f} s, {learned.steps / learned.seconds:.0f} steps/s")
        for tenth, mean in enumerate(learned.curve, start=1):
            bar = "#" * round(30 * (mean + 1))
            print(f"{tenth * game.episodes // 10:6} {mean:+.3f} {bar}")
        after, chance = play(game, learned.table), play(game, None)
        print(
            f"on 200 tasks of the test split: {after:+.3f}, at random {chance:+.3f}\n"
        )


if __name__ == "__main__":
    main()
