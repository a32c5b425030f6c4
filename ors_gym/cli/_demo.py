"""``demo``: every bundled environment, played at random and by its reference player."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Self

from ors_gym.cli._common import add_command
from ors_gym.display._terminal import say
from ors_gym.env import ORSEnv
from ors_gym.errors import needs_extra
from ors_gym.registration import BUNDLED_NAMES

_MOST_STEPS: Final = 60
_SUCCESS: Final = {"guess": 0.0, "blackjack": 0.5}
"""Total rewards that count as success, where less than 1 does."""
_MORE_EPISODES: Final = {"blackjack": 40}
"""Blackjack is mostly luck, so it plays this many times the episodes."""
_COLUMNS: Final = (
    *("environment", "player", "episodes", "success", "reward", "steps", "ms a step"),
)
_ROW: Final = "{:14} {:10} {:>8} {:>8} {:>7} {:>6} {:>10}"
_NEXT: Final = """\
Next:
  ors-gym play guess                       play one yourself
  ors-gym serve                            the same ones for other programs
  python -c 'import ors_gym as o; print(o.ORSEnv("guess").reset(seed=7))'
  ORS_BASE_URL=http://host:port python ... your own ORS server, the same code\
"""


@dataclasses.dataclass(slots=True)
class _Score:
    """The sums over the episodes of one player in one environment."""

    episodes: int = 0
    successes: int = 0
    reward: float = 0.0
    steps: int = 0
    seconds: float = 0.0

    def row(self, name: str, player: str) -> str:
        """Return it as a line of the table."""
        return _ROW.format(
            name,
            player,
            self.episodes,
            f"{self.successes / self.episodes:.0%}",
            f"{self.reward / self.episodes:.2f}",
            f"{self.steps / self.episodes:.1f}",
            f"{1000 * self.seconds / max(1, self.steps):.1f}",
        )


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        "play the bundled environments, at random and well",
        "--episodes 2",
    )
    parser.add_argument(
        "--episodes",
        type=_read_count,
        default=5,
        metavar="N",
        help="per player and environment; default: 5",
    )
    parser.set_defaults(run=_run)


def _read_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("play at least 1")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from ors_gym.server import REFERENCE_PLAYERS, embedded_base_url  # noqa: PLC0415

    counts = {
        name: options.episodes * _MORE_EPISODES.get(name, 1) for name in BUNDLED_NAMES
    }
    total = 2 * sum(counts.values())
    say(f"Starting the bundled environments, to play {total} episodes of them ...")
    base_url = embedded_base_url()
    transcript = ""
    with _ProgressBar(total) as progress:
        say(_ROW.format(*_COLUMNS))
        for name, episodes in counts.items():
            for player in ("random", "reference"):
                make_player = REFERENCE_PLAYERS[name] if player == "reference" else None
                progress.begin(f"ors/{name}, {player}")
                score, text = _play(
                    name, base_url, make_player, episodes, progress.advance
                )
                say(score.row(f"ors/{name}", player))
                if name == "guess" and make_player is not None:
                    transcript = text
    say(f"\nOne episode of ors/guess, by its reference player:\n\n{transcript}")
    say(f"\n{_NEXT}")
    return 0


class _ProgressBar:
    """A bar below the rows in a terminal, with the time that is left.

    What is printed while it is there appears above it.
    """

    def __init__(self, total: int) -> None:
        with needs_extra("server", "The demo"):
            from rich import progress  # noqa: PLC0415
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:24}"),
            progress.BarColumn(20),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            transient=True,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, what: str) -> None:
        """Say what is played now."""
        # At once: a short turn would be over before the bar is drawn again.
        self._bar.update(self._task, description=what, refresh=True)

    def advance(self) -> None:
        """Count an episode."""
        self._bar.advance(self._task)


def _play(
    name: str,
    base_url: str,
    make_player: Callable[[], Any] | None,
    episodes: int,
    on_episode: Callable[[], None],
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
        on_episode()
    env.close()
    return score, longest
