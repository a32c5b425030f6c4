"""Each of Gymnasium's own wrappers on a real env, with the result that it must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers

import ors_gym
from tests.system.gymnasium.mazes import ACTIONS, STEPS, Played, make, move, play


def upper(text: str) -> str:
    return text.upper()


def twice(reward: Any) -> Any:
    return 2 * reward


def same(got: Played, plain: Played) -> None:
    assert got == plain


def truncates(got: Played, plain: Played) -> None:
    assert got.observations == plain.observations[:3]
    assert got.ends == [(False, False), (False, True)]


def adds_statistics(got: Played, plain: Played) -> None:
    episode = got.infos[-1].pop("episode")
    assert episode["r"] == pytest.approx(sum(plain.rewards[:2]))
    assert episode["l"] == 2
    truncates(got, plain)


def in_capitals(got: Played, plain: Played) -> None:
    assert got.observations == [text.upper() for text in plain.observations]
    assert got.infos == plain.infos


def double(got: Played, plain: Played) -> None:
    assert got.rewards == [2 * reward for reward in plain.rewards]
    assert got.observations == plain.observations


def clipped(got: Played, plain: Played) -> None:
    assert got.rewards == [min(max(r, -0.01), 0.01) for r in plain.rewards]


def normalised(got: Played, plain: Played) -> None:
    assert np.isfinite(got.rewards).all()
    assert np.sign(got.rewards).tolist() == np.sign(plain.rewards).tolist()
    assert got.observations == plain.observations


def repeats(got: Played, plain: Played) -> None:
    # A bump that is made twice pays nothing twice, and takes two moves.
    assert got.rewards == [2 * plain.rewards[0]]
    assert "62 moves left" in got.observations[1]
    assert "62 moves left" not in plain.observations[1]


def sticks(got: Played, plain: Played) -> None:
    # Every action but the first is the first.
    assert len(set(got.rewards)) == 1
    assert all("There is a wall" in text for text in got.observations[1:])


def delays(got: Played, plain: Played) -> None:
    assert got.observations == ["", *plain.observations[:-1]]
    assert got.rewards == plain.rewards


def stacks(got: Played, plain: Played) -> None:
    texts = [plain.observations[0], *plain.observations]
    expected = [tuple(texts[i : i + 2]) for i in range(STEPS + 1)]
    assert [tuple(pair) for pair in got.observations] == expected


def tells_time(got: Played, plain: Played) -> None:
    assert [seen["obs"] for seen in got.observations] == plain.observations
    assert [int(seen["time"][0]) for seen in got.observations] == [*range(STEPS + 1)]


def keeps_text_only(got: Played, plain: Played) -> None:
    assert got.observations == [{"text": text} for text in plain.observations]


WORKS: list[Any] = [
    ("TimeLimit", lambda e: wrappers.TimeLimit(e, 2), truncates),
    ("OrderEnforcing", wrappers.OrderEnforcing, same),
    ("PassiveEnvChecker", wrappers.PassiveEnvChecker, same),
    (
        "RecordEpisodeStatistics",
        lambda e: wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(e, 2)),
        adds_statistics,
    ),
    ("Autoreset", wrappers.Autoreset, same),
    (
        "TransformObservation",
        lambda e: wrappers.TransformObservation(e, upper, e.observation_space),
        in_capitals,
    ),
    ("TransformReward", lambda e: wrappers.TransformReward(e, twice), double),
    ("ClipReward", lambda e: wrappers.ClipReward(e, -0.01, 0.01), clipped),
    ("NormalizeReward", wrappers.NormalizeReward, normalised),
    (
        "RepeatAction",
        lambda e: wrappers.TimeLimit(wrappers.RepeatAction(e, 2), 1),
        repeats,
    ),
    ("StickyAction", lambda e: wrappers.StickyAction(e, 0.999_999), sticks),
    ("DelayObservation", lambda e: wrappers.DelayObservation(e, 1), delays),
    (
        "FrameStackObservation",
        lambda e: wrappers.FrameStackObservation(e, 2, padding_type="reset"),
        stacks,
    ),
    (
        "TimeAwareObservation",
        lambda e: wrappers.TimeAwareObservation(
            wrappers.TimeLimit(e, 9), flatten=False, normalize_time=False
        ),
        tells_time,
    ),
    # Text is left as it is, since it has no fixed size.
    ("FlattenObservation", wrappers.FlattenObservation, same),
]

# The wrappers that need arrays say so when they are made.
REFUSES: list[Any] = [
    ("NormalizeObservation", wrappers.NormalizeObservation, ValueError),
    (
        "MaxAndSkipObservation",
        lambda e: wrappers.MaxAndSkipObservation(e, 2),
        ValueError,
    ),
    ("DtypeObservation", lambda e: wrappers.DtypeObservation(e, np.float32), TypeError),
    (
        "DiscretizeObservation",
        lambda e: wrappers.DiscretizeObservation(e, 3),
        TypeError,
    ),
    ("GrayscaleObservation", wrappers.GrayscaleObservation, TypeError),
    ("ResizeObservation", lambda e: wrappers.ResizeObservation(e, (4, 4)), TypeError),
    ("ReshapeObservation", lambda e: wrappers.ReshapeObservation(e, (1,)), TypeError),
    (
        "RescaleObservation",
        lambda e: wrappers.RescaleObservation(e, np.float32(0), np.float32(1)),
        TypeError,
    ),
    ("ClipAction", wrappers.ClipAction, TypeError),
    ("DiscretizeAction", lambda e: wrappers.DiscretizeAction(e, 3), TypeError),
    (
        "RescaleAction",
        lambda e: wrappers.RescaleAction(e, np.float32(0), np.float32(1)),
        TypeError,
    ),
]


@pytest.mark.parametrize(("name", "wrap", "check"), WORKS, ids=[w[0] for w in WORKS])
def test_works(
    plain: Played,
    name: str,
    wrap: Callable[[Any], Any],
    check: Callable[[Played, Played], None],
) -> None:
    env = wrap(make())
    assert type(env).__name__ == name or check is repeats
    got = play(env, ACTIONS)
    check(got, plain)
    env.close()


@pytest.mark.parametrize(
    ("name", "wrap", "error"), REFUSES, ids=[r[0] for r in REFUSES]
)
def test_is_refused(name: str, wrap: Callable[[Any], Any], error: type) -> None:
    env = make()
    with pytest.raises(error):
        wrap(env)
    env.close()


def test_transform_action_gives_words_for_calls(plain: Played) -> None:
    env = wrappers.TransformAction(make(), move, ors_gym.FreeText())
    words = [action["input"]["direction"] for action in ACTIONS]
    assert play(env, words) == plain
    env.close()


def test_filter_observation_takes_images_away(plain: Played) -> None:
    env = make(observation_mode="dict")
    keeps_text_only(play(wrappers.FilterObservation(env, ["text"]), ACTIONS), plain)
    env.close()


def test_autoreset_goes_on_with_the_next_task() -> None:
    env: Any = wrappers.Autoreset(gym.make("ors/blackjack"))
    env.reset(seed=3)
    stand = {"tool": "stand", "input": {}}
    assert env.step(stand)[2]
    observation, reward, terminated, truncated, info = env.step(stand)
    assert observation.startswith("Blackjack. Your hand")
    assert (reward, terminated, truncated, info["task_index"]) == (0.0, False, False, 4)
    env.close()


def test_order_enforcing_wants_a_reset_first() -> None:
    env = wrappers.OrderEnforcing(make().unwrapped)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(ACTIONS[0])
    env.close()


def test_render_collection_keeps_each_transcript(plain: Played) -> None:
    env = wrappers.RenderCollection(make(render_mode="ansi"))
    play(env, ACTIONS[:2])
    frames: Any = env.render()
    assert len(frames) == 3
    assert frames[0] in frames[1]
    assert plain.observations[2] in frames[2]
    env.close()


def test_every_wrapper_is_in_the_table() -> None:
    apart = {
        "TransformAction",
        "FilterObservation",
        "RenderCollection",
        "AddRenderObservation",
        "AddWhiteNoise",
        "ObstructView",
        "RecordVideo",
        "HumanRendering",
    }
    # Of other array libraries, and of one game console.
    other = {
        "ArrayConversion",
        "AtariPreprocessing",
        "JaxToNumpy",
        "JaxToTorch",
        "NumpyToTorch",
    }
    listed = {row[0] for row in (*WORKS, *REFUSES)} | apart | other
    classes = {name for name in wrappers.__all__ if name[0].isupper()}
    assert classes - listed == set()
