"""Spaces of Gymnasium as JSON, and actions by their schemas: random ones come back."""

import json
import math
from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym._gymnasium_json.spaces import (
    action_schema,
    describe_space,
    read_action,
    read_space,
    write_action,
)
from ors_gym._gymnasium_json.values import (
    UncarriedError,
    read_value,
    write_value,
)
from ors_gym.spaces import ToolCallSpace, json_schema
from tests.support.identical import identical
from tests.support.random_spaces import GRAPHS, NESTED, STACKED

pytestmark = pytest.mark.unit

SEEDS = st.integers(0, 2**31)
few = settings(max_examples=25)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def arrays(action: Any) -> Any:
    """Gymnasium samples either an array or a scalar of a Box without dimensions."""
    if isinstance(action, tuple):
        return tuple(map(arrays, action))
    if isinstance(action, dict):
        return {key: arrays(one) for key, one in action.items()}
    return np.asarray(action)


@few
@given(NESTED | STACKED | GRAPHS, SEEDS)
def test_a_space_comes_back(space: Space[Any], seed: int):
    again = read_space(through_json(describe_space(space)))
    assert again == space
    assert type(again) is type(space)
    # Equal spaces of Gymnasium may still be sampled in different ways.
    space.seed(seed)
    again.seed(seed)
    assert repr(again) == repr(space)
    assert identical(again.sample(), space.sample())


@few
@given(NESTED | STACKED | GRAPHS, SEEDS)
def test_a_value_of_a_space_comes_back(space: Space[Any], seed: int):
    space.seed(seed)
    value = space.sample()
    assert identical(read_value(through_json(write_value(value))), value)


@few
@given(NESTED | STACKED, SEEDS)
def test_an_action_comes_back_and_obeys_the_schema(space: Space[Any], seed: int):
    space.seed(seed)
    action = space.sample()
    written = through_json(write_action(space, action))
    assert identical(arrays(read_action(space, written)), arrays(action))
    assert json_schema.validate(action_schema(space), written) == []


@few
@given(NESTED | STACKED, SEEDS)
def test_a_sampled_call_is_an_action(space: Space[Any], seed: int):
    schema = {
        "type": "object",
        "properties": {"action": action_schema(space)},
        "required": ["action"],
    }
    tool = {"name": "step", "description": "", "input_schema": schema}
    calls = ToolCallSpace([tool], seed=seed)
    for _ in range(3):
        call = through_json(calls.sample())
        action = read_action(space, call["input"]["action"])
        if not isinstance(space, spaces.Sequence):
            # Gymnasium finds no member in an empty or flat stack.
            assert action in space


@pytest.mark.parametrize(
    "described",
    [
        None,
        {},
        {"space": "Space"},
        {"space": "Box", "dtype": "<f4", "shape": [2**30], "low": 0, "high": 1},
        {"space": "Box", "dtype": "<f4", "shape": [-1], "low": 0, "high": 1},
        {"space": "Box", "dtype": "|O", "shape": [1], "low": 0, "high": 1},
        {"space": "Box", "dtype": "<f4", "shape": [1], "low": "a", "high": 1},
        {"space": "Box", "dtype": "i4,(", "shape": [1], "low": 0, "high": 1},
        {"space": "Discrete", "n": 0, "start": 0, "dtype": "<i8"},
        {"space": "MultiDiscrete", "nvec": 1, "start": 0},
        {"space": "MultiBinary", "n": [2**20, 2**20]},
        {"space": "Text", "min_length": 2, "max_length": 1, "charset": "a"},
        {"space": "Tuple", "spaces": [3]},
        {"space": "Dict", "spaces": {"a": 1}},
        {"space": "Graph", "node": {"space": "Text"}, "edge": None},
    ],
    ids=str,
)
def test_what_is_no_space_is_an_error(described):
    with pytest.raises(UncarriedError):
        read_space(described)


class Loose(spaces.Box):
    """A space of one's own, whose members nobody else knows."""


@pytest.mark.parametrize(
    "space",
    [
        Loose(0, 1),
        spaces.Tuple([spaces.Discrete(2), Loose(0, 1)]),
    ],
    ids=str,
)
def test_a_space_without_a_form_is_an_error(space):
    with pytest.raises(UncarriedError, match="Loose"):
        describe_space(space)


@pytest.mark.slow
def test_a_space_of_too_many_numbers_is_an_error():
    space = spaces.Box(0, 1, (2**14, 2**13), np.uint8)
    with pytest.raises(UncarriedError, match="too large"):
        describe_space(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Dict([(1, spaces.Discrete(2))]),  # type: ignore[list-item]
        spaces.Box(0, 1, dtype=np.longdouble),
    ],
    ids=str,
)
def test_actions_without_a_schema_are_an_error(space):
    with pytest.raises(UncarriedError):
        action_schema(space)


BOX = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("space", "written"),
    [
        (spaces.Discrete(2), 2),
        (spaces.Discrete(2), -1),
        (spaces.Discrete(2), 2**70),
        (spaces.Discrete(2), True),
        (spaces.Discrete(2), "1"),
        (spaces.Discrete(2), 0.5),
        (spaces.Discrete(2), None),
        (spaces.Discrete(2), [1]),
        (BOX, [0, 2]),
        (BOX, [0]),
        (BOX, [0, 0, 0]),
        (BOX, [[0], [0]]),
        (BOX, [0, "NaN"]),
        (BOX, [0, "Infinity"]),
        (BOX, 0),
        (spaces.Box(0, 9, (), np.uint8), 256),
        (spaces.MultiBinary(2), [0, 2]),
        (spaces.MultiDiscrete([2, 3]), [1, 3]),
        (spaces.Text(2, charset="ab"), "abc"),
        (spaces.Text(2, charset="ab"), "a\n"),
        (spaces.Text(2, charset="ab"), 3),
        (spaces.Tuple([BOX]), []),
        (spaces.Tuple([BOX]), {"0": [0, 0]}),
        (spaces.Dict(a=BOX), {}),
        (spaces.Dict(a=BOX), {"a": [0, 0], "b": 1}),
        (spaces.Dict(a=BOX), [0]),
        (spaces.OneOf([BOX]), {"choice": 1, "value": [0, 0]}),
        (spaces.OneOf([BOX]), {"choice": False, "value": [0, 0]}),
        (spaces.OneOf([BOX]), [0, [0, 0]]),
        (spaces.Sequence(BOX), 3),
        (spaces.Sequence(BOX, stack=True), [[0, 2]]),
    ],
    ids=str,
)
def test_what_is_no_action_is_an_error_that_names_the_space(space, written):
    with pytest.raises(ValueError, match="is not in") as caught:
        read_action(space, written)
    assert str(space)[:9] in str(caught.value)


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (spaces.Discrete(2), 0.5),
        (spaces.Discrete(2), None),
        (spaces.Box(0, 9, (1,), np.int8), np.array([0.5])),
        (BOX, [None, 1]),
        (BOX, "up"),
        (spaces.MultiDiscrete([2, 2]), np.array([math.nan, 1])),
        (spaces.Text(3), 3),
        (spaces.Tuple([BOX]), ()),
        (spaces.Dict(a=BOX), {}),
        (spaces.OneOf([BOX]), 3),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_an_error(space, action):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        write_action(space, action)


def test_numbers_of_other_types_are_written():
    assert write_action(BOX, [0, 1]) == [0.0, 1.0]
    assert write_action(BOX, np.array([1e300, -1])) == ["Infinity", -1.0]
    assert write_action(spaces.MultiBinary(2), [1, 0]) == [1, 0]
    assert write_action(spaces.Discrete(3), np.array(2)) == 2
    wide = spaces.Box(-np.inf, np.inf, (1,))
    assert write_action(wide, [np.inf]) == ["Infinity"]
    assert read_action(wide, ["-Infinity"]) == [-np.inf]
    assert read_action(wide, [1e300]) == [np.inf]
    assert read_action(spaces.Discrete(3), 2.0) == 2


def test_rows_with_the_same_bounds_are_written_once():
    schema = action_schema(spaces.Box(0, 255, (84, 84, 3), np.uint8))
    assert schema["items"]["items"]["items"]["maximum"] == 255
    assert (
        len(json.dumps(describe_space(spaces.Box(0, 255, (84, 84, 3), np.uint8)))) < 300
    )
