"""`FreeText` by itself and under Gymnasium's wrappers."""

import copy
import json
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Dict, Discrete, Text, flatdim, flatten, flatten_space
from gymnasium.spaces.utils import unflatten
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.spaces import FreeText
from tests.spaces.texts import TEXTS, EchoEnv

pytestmark = pytest.mark.unit


@given(st.text())
def test_any_text_within_the_length_is_a_member(text: str) -> None:
    assert text in FreeText()
    assert text in FreeText(max_length=len(text))
    assert text + "x" not in FreeText(max_length=len(text))


@pytest.mark.parametrize("value", [None, 1, b"bytes", ["a"], ("a",), np.array("a")])
def test_what_is_no_text(value: object) -> None:
    assert value not in FreeText()


def test_samples_are_short_printable_and_seeded() -> None:
    one, two = FreeText(seed=5), FreeText(seed=5)
    samples = [one.sample() for _ in range(200)]
    assert samples == [two.sample() for _ in range(200)]
    assert len(set(samples)) > 100
    assert max(map(len, samples)) <= 32
    assert all(sample.isprintable() and sample in one for sample in samples)
    lengths = {len(FreeText(max_length=2, seed=n).sample()) for n in range(50)}
    assert lengths == {0, 1, 2}


def test_samples_follow_a_mask() -> None:
    space = FreeText(seed=1)
    mask = np.zeros(len(space.character_list), dtype=np.int8)
    mask[space.character_list.index("x")] = 1
    assert space.sample(mask=(4, mask)) == "xxxx"
    assert set(space.sample(mask=(None, mask))) <= {"x"}
    assert len(space.sample(mask=(7, None))) == 7
    probability = mask.astype(np.float64)
    assert space.sample(probability=(3, probability)) == "xxx"
    with pytest.raises(ValueError, match="mask"):
        space.sample(mask=(4, mask), probability=(4, probability))


def test_equality_and_repr() -> None:
    assert FreeText(max_length=3) == FreeText(max_length=3, seed=1)
    assert FreeText(max_length=3) != FreeText(max_length=4)
    assert FreeText(max_length=3) != Text(3)
    assert repr(FreeText(max_length=3)) == "FreeText(max_length=3)"
    with pytest.raises(TypeError):
        hash(FreeText())


def test_a_pickle_is_small_and_keeps_the_state() -> None:
    space = FreeText(seed=1)
    space.sample()
    pickled = pickle.dumps(space)
    assert len(pickled) < 10_000
    restored = pickle.loads(pickled)
    copied = copy.deepcopy(space)
    assert space == restored == copied
    assert space.sample() == restored.sample() == copied.sample()


def test_json_round_trip() -> None:
    space = FreeText()
    texts = [text for text in TEXTS if len(text) < 10_000]
    wire = json.loads(json.dumps(space.to_jsonable(texts)))
    assert space.from_jsonable(wire) == texts


def test_it_is_never_flattened() -> None:
    space: Any = FreeText()
    assert not space.is_np_flattenable
    assert flatten_space(space) is space
    assert unflatten(space, flatten(space, "ü")) == "ü"
    with pytest.raises(ValueError, match="no fixed size"):
        flatdim(space)
    both = Dict({"text": space, "number": Discrete(2)})
    flat = flatten(both, {"text": "ü", "number": np.int64(1)})
    assert isinstance(flat, dict)
    assert flat["text"] == "ü"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_check_env_is_satisfied() -> None:
    check_env(EchoEnv(), skip_render_check=True)


def played(env: gymnasium.Env[Any, Any], texts: list[str]) -> list[Any]:
    observations = [env.reset(seed=0)[0]]
    observations += [env.step(text)[0] for text in texts]
    assert all(observation in env.observation_space for observation in observations)
    return observations


def test_delay_observation() -> None:
    env = wrappers.DelayObservation(EchoEnv(), delay=2)
    assert played(env, ["ä", "ß", "ç"]) == ["", "", "start", "ä"]


@pytest.mark.parametrize(
    ("padding", "filler"), [("reset", "start"), ("zero", ""), ("…", "…")]
)
def test_frame_stack_observation(padding: str, filler: str) -> None:
    env = wrappers.FrameStackObservation(EchoEnv(), 3, padding_type=padding)
    first, second = (filler, filler, "start"), (filler, "start", "ä")
    assert played(env, ["ä", "ß"]) == [first, second, ("start", "ä", "ß")]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.TimeLimit(env, 100),
        wrappers.OrderEnforcing,
        wrappers.PassiveEnvChecker,
        wrappers.RecordEpisodeStatistics,
        wrappers.Autoreset,
        lambda env: wrappers.TransformReward(env, lambda reward: reward),
        lambda env: wrappers.ClipReward(env, 0, 1),
        wrappers.NormalizeReward,
        lambda env: wrappers.StickyAction(env, 0.0),
        wrappers.FlattenObservation,
    ],
)
def test_wrappers_that_leave_text_alone(wrap: Any) -> None:
    assert played(wrap(EchoEnv()), list(TEXTS)) == ["start", *TEXTS]


def test_time_aware_observation() -> None:
    limited = wrappers.TimeLimit(EchoEnv(), 10)
    env = wrappers.TimeAwareObservation(limited, flatten=False)
    assert [observation["obs"] for observation in played(env, ["ä"])] == ["start", "ä"]
