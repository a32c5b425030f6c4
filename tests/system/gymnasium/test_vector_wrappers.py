"""Gymnasium's wrappers for vector envs on ours, with the result that each must have."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TransformReward
from gymnasium.wrappers import vector as wrappers
from packaging.version import Version

from ors_gym.vector import ORSVectorEnv
from ors_gym.wrappers import vector

STAND = {"tool": "stand", "input": {}}
HIT = {"tool": "hit", "input": {}}
HAND = r"\(?(\d+)\)\. The dealer shows"


def make(**arguments: Any) -> Any:
    return gym.make_vec("ors/blackjack", num_envs=2, **arguments)


def play(envs: Any, steps: int = 6) -> list[Any]:
    results = [envs.reset(seed=4)]
    results += [envs.step([STAND, HIT]) for _ in range(steps)]
    return results


@pytest.fixture(scope="module")
def plain() -> list[Any]:
    envs = make()
    results = play(envs)
    envs.close()
    rewards = np.array([step[1] for step in results[1:]])
    assert len(np.unique(rewards)) > 1
    assert sum(step[2].sum() for step in results[1:]) >= 3
    return results


def observations(results: list[Any]) -> list[Any]:
    return [result[0] for result in results]


def rewards(results: list[Any]) -> list[Any]:
    return [result[1].tolist() for result in results[1:]]


def in_capitals(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.upper() for text in texts)


def double(values: Any) -> Any:
    return 2 * values


def swap(actions: Any) -> Any:
    return actions[::-1]


def pays_twice(got: list[Any], plain: list[Any]) -> bool:
    return rewards(got) == [[2 * a, 2 * b] for a, b in rewards(plain)]


WORKS: list[Any] = [
    (
        "TransformObservation",
        lambda e: wrappers.TransformObservation(e, in_capitals),
        lambda got, plain: (
            observations(got) == [in_capitals(o) for o in observations(plain)]
        ),
    ),
    ("TransformReward", lambda e: wrappers.TransformReward(e, double), pays_twice),
    (
        "VectorizeTransformReward",
        lambda e: wrappers.VectorizeTransformReward(e, TransformReward, func=double),
        pays_twice,
    ),
    (
        "ClipReward",
        lambda e: wrappers.ClipReward(e, 0, 1),
        lambda got, plain: (
            rewards(got) == [[max(a, 0), max(b, 0)] for a, b in rewards(plain)]
        ),
    ),
    (
        "NormalizeReward",
        wrappers.NormalizeReward,
        lambda got, plain: (
            observations(got) == observations(plain)
            and np.sign(rewards(got)).tolist() == np.sign(rewards(plain)).tolist()
        ),
    ),
    (
        "DictInfoToList",
        wrappers.DictInfoToList,
        lambda got, plain: (
            [[info["task_index"] for info in result[-1]] for result in got]
            == [result[-1]["task_index"].tolist() for result in plain]
        ),
    ),
]

REFUSES: list[tuple[str, tuple[Any, ...]]] = [
    ("NormalizeObservation", ()),
    ("GrayscaleObservation", ()),
    ("ResizeObservation", ((4, 4),)),
    ("ReshapeObservation", ((1,),)),
    ("RescaleObservation", (np.float32(0), np.float32(1))),
    ("DtypeObservation", (np.float32,)),
    ("FilterObservation", (["text"],)),
    ("ClipAction", ()),
    ("RescaleAction", (0.0, 1.0)),
]


@pytest.mark.parametrize(("name", "wrap", "check"), WORKS, ids=[w[0] for w in WORKS])
def test_works(plain, name, wrap, check, closing):
    envs = closing(wrap(make()))
    assert type(envs).__name__ == name
    assert check(play(envs), plain)


@pytest.mark.parametrize(("name", "given"), REFUSES)
def test_is_refused(name: str, given: tuple[Any, ...], closing) -> None:
    envs = closing(make())
    # Most say so when they are made, one at its first reset.
    with pytest.raises((TypeError, ValueError, AssertionError)):
        getattr(wrappers, name)(envs, *given).reset(seed=0)


LOSES_REWARDS = pytest.mark.xfail(
    Version(gym.__version__) < Version("1.4"),
    reason="before 1.4 Gymnasium's wrapper leaves out the first reward of an episode "
    "that began in the step in which the last one ended",
)


@pytest.mark.parametrize(
    "mode",
    [
        AutoresetMode.NEXT_STEP,
        AutoresetMode.DISABLED,
        pytest.param(AutoresetMode.SAME_STEP, marks=LOSES_REWARDS),
    ],
)
def test_statistics_in_every_autoreset_mode(mode: AutoresetMode) -> None:
    envs: Any = ORSVectorEnv("guess", num_envs=3, autoreset_mode=mode)
    envs = wrappers.RecordEpisodeStatistics(envs)
    envs.reset(seed=0)
    returns, totals = [], np.zeros(3)
    for step in range(30):
        wrong = {"tool": "guess", "input": {"number": 1 + step % 2}}
        _, reward, terminated, _, infos = envs.step([wrong] * 3)
        totals += reward
        for i in np.flatnonzero(terminated):
            returns.append((infos["episode"]["r"][i], totals[i]))
            totals[i] = 0
        if mode is AutoresetMode.DISABLED and terminated.any():
            envs.reset(options={"reset_mask": terminated.copy()})
    envs.close()
    assert len(returns) >= 6
    for counted, expected in returns:
        assert counted == pytest.approx(expected)


def test_transform_action_changes_what_is_sent(plain: list[Any], closing) -> None:
    envs = closing(wrappers.TransformAction(make(), swap))
    assert [*rewards(play(envs))] != rewards(plain)


def test_filter_observation_takes_images_away() -> None:
    envs: Any = gym.make_vec("ors/maze", num_envs=2, observation_mode="dict")
    texts = envs.reset(seed=1)[0]["text"]
    envs = wrappers.FilterObservation(envs, ["text"])
    assert envs.reset(seed=1)[0] == {"text": texts}
    envs.close()


def test_flatten_observation_leaves_text_as_it_is(plain: list[Any], closing) -> None:
    envs = closing(wrappers.FlattenObservation(make()))
    assert observations(play(envs)) == observations(plain)


def test_through_the_twins_those_for_numbers_work() -> None:
    envs: Any = vector.DiscreteTools(vector.ParsedText(make(), HAND))
    envs = wrappers.NormalizeObservation(envs)
    values, infos = envs.reset(seed=4)
    for _ in range(4):
        assert values.shape == (2, 1)
        assert infos["action_mask"].tolist() == [[1, 1], [1, 1]]
        values, *_, infos = envs.step(envs.action_space.sample())
    envs.close()


@pytest.mark.skipif(
    Version(gym.__version__) < Version("1.2.1"),
    reason="Gymnasium has RecordVideo for vector envs from 1.2.1 on",
)
def test_record_video_writes_a_film(tmp_path: Any) -> None:
    envs: Any = wrappers.RecordVideo(
        make(render_mode="rgb_array"),
        str(tmp_path / "films"),
        video_aspect_ratio=(1, 1),
        disable_logger=True,
    )
    play(envs)
    envs.close()
    assert all(film.stat().st_size > 1000 for film in tmp_path.glob("films/*.mp4"))
    assert list(tmp_path.glob("films/*.mp4"))


@pytest.mark.slow
def test_human_rendering_shows(plain, monkeypatch, closing):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    envs = closing(wrappers.HumanRendering(make(render_mode="rgb_array")))
    assert observations(play(envs)) == observations(plain)


def test_every_wrapper_is_in_the_table() -> None:
    apart = {
        *("RecordEpisodeStatistics", "TransformAction", "FlattenObservation"),
        *("RecordVideo", "HumanRendering"),
        # What the others are made of.
        *("VectorizeTransformAction", "VectorizeTransformObservation"),
    }
    other = {"ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"}
    listed = {row[0] for row in (*WORKS, *REFUSES)} | apart | other
    assert set(wrappers.__all__) - listed == set()
