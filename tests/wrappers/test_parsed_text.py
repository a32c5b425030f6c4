"""Text as numbers: what matches, what does not, and what is shown then."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import given
from hypothesis import strategies as st

import ors_gym
from ors_gym.wrappers import ParsedText
from ors_gym.wrappers._parsed_text import TextReading

BOUNDS = r"in (\d+)\.\.(\d+)"


def guess(number: int) -> Any:
    return {"tool": "guess", "input": {"number": number}}


def length(text: str) -> int:
    return len(text)


class Says(gym.Env[str, Any]):
    """Observes the texts that it is given, one after the other."""

    def __init__(self, *texts: str) -> None:
        self.observation_space = ors_gym.FreeText()
        self.action_space = Discrete(1)
        self._texts = texts

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place = 0
        return self._texts[0], {}

    def step(self, action):
        self._place += 1
        over = self._place == len(self._texts) - 1
        return self._texts[self._place], 0.0, over, False, {}


def test_groups_become_numbers(closing):
    env = closing(ParsedText(gym.make("ors/guess"), BOUNDS))
    assert env.observation_space == Box(-np.inf, np.inf, (2,), np.float32)
    observation, _ = env.reset(seed=7)
    assert (observation.tolist(), observation.dtype) == ([1, 16], np.float32)
    assert env.step(guess(9))[0].tolist() == [10, 16]


def test_the_info_and_the_rest_stay_as_they_are(closing):
    plain = closing(gym.make("ors/guess"))
    parsed = closing(ParsedText(gym.make("ors/guess"), BOUNDS))
    assert plain.reset(seed=7)[1] == parsed.reset(seed=7)[1]
    for action in (guess(9), "no call", guess(99), guess(12)):
        assert plain.step(action)[1:] == parsed.step(action)[1:]


def test_after_a_bad_call_the_value_stays(closing):
    # The server's complaint about 99 holds numbers, which are not the state.
    env = closing(ParsedText(gym.make("ors/guess"), r"(\d+)"))
    assert env.reset(seed=7)[0].tolist() == [1]
    assert env.step(guess(9))[0].tolist() == [9]
    for bad in ("no call 5", guess(99), {"tool": "unknown7", "input": {}}):
        observation, *_, info = env.step(bad)
        assert observation.tolist() == [9]
        assert info["error_kind"] == "invalid_action"


def test_with_a_default_it_is_shown_instead(closing):
    env = closing(ParsedText(gym.make("ors/guess"), BOUNDS, default=[0, 0]))
    env.reset(seed=7)
    assert env.step(guess(9))[0].tolist() == [10, 16]
    assert env.step("no call")[0].tolist() == [0, 0]
    assert env.step(guess(10))[0].tolist() == [11, 16]


def test_the_last_text_of_an_episode_may_be_another(closing):
    env = closing(ParsedText(gym.make("ors/guess"), BOUNDS))
    env.reset(seed=7)
    values = [env.step(guess(9))[0].tolist()]
    for number in range(10, 17):
        observation, _, terminated, *_ = env.step(guess(number))
        if terminated:
            break
        values.append(observation.tolist())
    assert terminated
    assert observation.tolist() == values[-1]


def test_a_prompt_that_cannot_be_read_is_an_error(server, closing):
    arguments: dict[str, Any] = {"env_name": "contract", "base_url": server.base_url}
    env = closing(ParsedText(gym.make("ors/remote", **arguments), r"(\d+) guesses"))
    with pytest.raises(ors_gym.InvalidRequestError, match=r"'4 \+ 4 = \?'.*default="):
        env.reset(seed=4)
    env = gym.make("ors/remote", **arguments)
    env = closing(ParsedText(env, r"(\d+) guesses", default=[3]))
    assert env.reset(seed=4)[0].tolist() == [3]


def test_another_text_within_an_episode_is_reported_once():
    says = Says("at 1", "nowhere", "nowhere else", "at 2", "?", "end")
    env: Any = ParsedText(says, r"at (\d)")
    assert env.reset()[0] == 1
    with pytest.warns(UserWarning, match=r"cannot be read into Box.*'nowhere'"):
        assert env.step(0)[0] == 1
    assert [float(env.step(0)[0][0]) for _ in range(4)] == [1, 2, 2, 2]
    # The value of the episode before is none of the next one.
    assert env.reset()[0] == 1


def test_a_reset_that_fails_gives_some_value():
    for space in (None, MultiDiscrete([5, 5]), Box(3, 4, (2,))):
        reading = TextReading(BOUNDS, space)
        value = reading.first("connection refused 3..4", is_error=True)
        assert value in reading.space
        assert np.array_equal(value, reading.first("down", is_error=True))
        still_down = reading.next("still down", is_error=True, over=True)
        assert np.array_equal(value, still_down)
    reading = TextReading(BOUNDS, default=[1, 2])
    assert reading.first("down", is_error=True).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("parse", "space", "text", "expected"),
    [
        (r"x(\d+)", Discrete(10), "x7", np.int64(7)),
        (r"x(\d+)", Discrete(3, start=5), "x7", np.int64(7)),
        (r"(\d+),(\d+)", MultiDiscrete([10, 10]), "4,5", np.array([4, 5])),
        (
            r"(\d) (\d) (\d) (\d)",
            Box(0, 9, (2, 2), np.int8),
            "1 2 3 4",
            [[1, 2], [3, 4]],
        ),
        (r"(\d)(\d)", MultiBinary(2), "10", np.array([1, 0], np.int8)),
        (r"a(\d)?", Box(0, 9, (1,)), "a", [0.0]),
        (r"is (-?[\d.e+-]+)", None, "it is -1.5e+3", [-1500.0]),
        (length, Box(0, 99, ()), "four", np.float32(4)),
        (length, Discrete(9), "four", np.int64(4)),
        (lambda text: (1, len(text)), Tuple([Discrete(2), Discrete(9)]), "ab", (1, 2)),
        (str.upper, ors_gym.FreeText(), "ab", "AB"),
        (lambda text: {"n": 3}, Dict({"n": Discrete(5)}), "", {"n": 3}),
    ],
)
def test_values_in_every_kind_of_space(parse, space, text, expected):
    reading = TextReading(parse, space)
    value = reading.first(text)
    assert value in reading.space
    if isinstance(expected, tuple | dict | str):
        assert value == expected
    else:
        assert np.array_equal(value, expected)
    if space is not None and isinstance(value, np.ndarray | np.generic):
        assert value.dtype == space.dtype


@pytest.mark.parametrize(
    ("parse", "space", "text"),
    [
        (r"x(\d+)", Discrete(10), "x10"),
        (r"x(.+)", None, "xyz"),
        (r"x(.+)", Discrete(10), "x1.5"),
        (r"x(.+)", Discrete(10), "xnan"),
        (r"x(.+)", None, "xnan"),
        (r"x(.+)", MultiDiscrete([10]), "x1e300"),
        (r"x(\d)(\d)", Discrete(100), "x12"),
        (length, MultiDiscrete([3, 3]), "ab"),
        (str.split, Box(0, 9, (2,)), "a b"),
        (lambda text: [[1], [1, 2]], Box(0, 9, (2,)), ""),
        (lambda text: None, Discrete(2), ""),
        (lambda text: (1, 2), Tuple([Discrete(2), Discrete(2)]), ""),
    ],
)
def test_a_value_outside_of_the_space_is_none(parse, space, text):
    with pytest.raises(ors_gym.InvalidRequestError, match="cannot be read"):
        TextReading(parse, space).first(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parse": "no group"}, "has no group"),
        ({"parse": "(unclosed"}, "not a regular expression"),
        ({"parse": length}, "say with space="),
        ({"parse": 3, "space": Discrete(2)}, "not 3"),
        (
            {"parse": r"(\d)", "space": Discrete(2), "default": 2},
            r"default=2 is not in",
        ),
        ({"parse": r"(\d)(\d)", "default": [1]}, r"default=\[1\] is not in"),
    ],
)
def test_arguments_that_cannot_be_right(arguments, message, closing):
    env = closing(gym.make("ors/guess"))
    with pytest.raises(ors_gym.InvalidRequestError, match=message):
        ParsedText(env, **arguments)


def test_an_env_without_text_is_refused(closing):
    env = closing(gym.make("ors/maze", observation_mode="dict"))
    with pytest.raises(ors_gym.InvalidRequestError, match='observation_mode="text"'):
        ParsedText(env, BOUNDS)


@given(st.lists(st.text(alphabet=st.characters()), min_size=1, max_size=5))
@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_whatever_the_text_the_value_is_in_the_space(texts):
    parse = r"(?s)(.)(.*)"
    for space in (None, MultiDiscrete([10, 10]), Box(-5, 5, (2,), np.int32)):
        reading = TextReading(parse, space, default=None)
        shown = reading.first("11")
        for text in texts:
            before, shown = shown, reading.next(text)
            assert shown in reading.space
            match = re.search(parse, text)
            if match is None:
                assert np.array_equal(shown, before)


def test_shown_values_are_the_callers_own():
    reading = TextReading(BOUNDS)
    reading.first("in 1..2")[:] = 9
    assert reading.next("nothing", over=True).tolist() == [1, 2]
    reading.last[:] = 9
    assert reading.last.tolist() == [1, 2]
