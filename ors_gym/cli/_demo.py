"""``demo``: every bundled environment, played at random and by its reference player."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any, Final

from ors_gym.env import ORSEnv
from ors_gym.errors import needs_extra
from ors_gym.registration import BUNDLED_NAMES

_MOST_STEPS: Final = 60
_SUCCESS: Final = {"guess": 0.0, "blackjack": 0.5}
"""Total rewards that count as success, where less than 1 does."""
_MORE_EPISODES: Final = {"blackjack": 40}
"""Blackjack is mostly luck, so it plays this many times the episodes."""
_NEXT: Final = """\
Next:
  python -m ors_gym serve                 the same environments for other programs
  python -c 'import ors_gym as o; print(o.ORSEnv("guess").reset(seed=7))'
  ORS_BASE_URL=http://host:port python ...      your own ORS server, the same code\
"""


@dataclasses.dataclass(slots=True)
class _Score:
    """The sums over the episodes of one player in one environment."""

    episodes: int = 0
    successes: int = 0
    reward: float = 0.0
    steps: int = 0
    seconds: float = 0.0


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "demo", help="play the bundled environments, at random and well"
    )
    parser.add_argument(
        "--episodes", type=int, default=5, help="per player and environment; default: 5"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ors_gym.server import REFERENCE_PLAYERS, embedded_base_url  # noqa: PLC0415

    with needs_extra("server", "The demo"):
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    base_url = embedded_base_url()
    table = Table(title="Bundled ORS environments")
    table.add_column("environment", no_wrap=True)
    table.add_column("player")
    for column in ("episodes", "success", "mean reward", "steps", "ms per step"):
        table.add_column(column, justify="right")
    transcript = ""
    for name in BUNDLED_NAMES:
        for player in ("random", "reference"):
            make_player = REFERENCE_PLAYERS[name] if player == "reference" else None
            episodes = options.episodes * _MORE_EPISODES.get(name, 1)
            score, text = _play(name, base_url, make_player, episodes)
            if name == "guess" and make_player is not None:
                transcript = text
            table.add_row(
                f"ors/{name}" if player == "random" else "",
                player,
                str(score.episodes),
                f"{score.successes / score.episodes:.0%}",
                f"{score.reward / score.episodes:.2f}",
                f"{score.steps / score.episodes:.1f}",
                f"{1000 * score.seconds / max(1, score.steps):.1f}",
            )
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        "\nOne episode of ors/guess, by its reference player:\n", style="bold"
    )
    console.print(transcript, markup=False, highlight=False)
    console.print(f"\n{_NEXT}", markup=False, highlight=False)
    return 0


def _play(
    name: str, base_url: str, make_player: Callable[[], Any] | None, episodes: int
) -> tuple[_Score, str]:
    """Play some episodes; return the score and the longest transcript."""
    score, longest = _Score(), ""
    env = ORSEnv(name, base_url, render_mode="ansi", max_episode_steps=_MOST_STEPS)
    env.action_space.seed(0)
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        player = make_player() if make_player is not None else None
        total, ended = 0.0, False
        while not ended:
            if player is not None:
                action = player(observation, env.tools)
            else:
                action = env.action_space.sample()
            start = time.perf_counter()
            observation, reward, terminated, truncated, _ = env.step(action)
            score.seconds += time.perf_counter() - start
            score.steps += 1
            total += reward
            ended = terminated or truncated
        score.episodes += 1
        score.reward += total
        score.successes += terminated and total >= _SUCCESS.get(name, 1.0)
        longest = max(longest, str(env.render() or ""), key=len)
    env.close()
    return score, longest
