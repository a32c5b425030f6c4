"""Tokens of turns: their JSON, and the sequences that a loss takes."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Episode, Generated, Step, Turn, TurnTokens

pytestmark = pytest.mark.unit

ids = st.lists(st.integers(0, 2**20), max_size=6)


@st.composite
def turns_of_tokens(draw) -> TurnTokens:
    sampled = draw(ids)  # none, if the engine said nothing
    count = len(sampled)
    numbers = st.floats(-50, 0, allow_nan=False)
    return TurnTokens(
        draw(ids) or [0],  # a turn is begun, if by nothing else
        sampled,
        draw(st.none() | st.lists(numbers, min_size=count, max_size=count)),
        draw(st.sampled_from(["stop", "length", "abort"])),
        draw(
            st.none()
            | st.integers(0, 9)
            | st.lists(st.integers(0, 9), min_size=count, max_size=count)
        ),
        starts_sequence=draw(st.booleans()),
    )


@st.composite
def episodes(draw) -> Episode:
    turns, steps = [], []
    for number, tokens in enumerate(draw(st.lists(turns_of_tokens(), max_size=6))):
        calls = draw(st.integers(0, 2))
        actions: list[Any] = [{"tool": "look", "input": {}}] * calls or ["text"]
        call_ids = [f"c{place}" for place in range(len(actions))]
        turns.append(Turn(actions, call_ids=call_ids, tokens=tokens))
        for place in range(len(actions)):
            reward = draw(st.sampled_from([0.0, 0.5, 1.0]))
            tool = "look" if calls else ""
            steps.append(Step(number, f"c{place}", tool, {}, [], reward))
    total = draw(st.none() | st.floats(-5, 5))
    return Episode("math", turns=turns, steps=steps, total_reward=total)


@settings(max_examples=50)
@given(episodes())
def test_an_episode_keeps_its_tokens_as_json(episode):
    assert Episode.from_json(episode.to_json()) == episode
    json.dumps(episode.metrics(), allow_nan=False)


@settings(max_examples=50)
@given(episodes())
def test_the_sequences_are_what_was_read_and_sampled(episode):
    sequences = episode.sequences()
    assert [n for one in sequences for n in one.turns] == list(
        range(len(episode.turns))
    )
    for sequence in sequences:
        tokens = [episode.turns[number].tokens for number in sequence.turns]
        assert not any(one.starts_sequence for one in tokens[1:])
        expected, mask = [], []
        for one in tokens:
            expected += one.prompt_ids + one.ids
            mask += [0] * len(one.prompt_ids) + [1] * len(one.ids)
        assert (sequence.ids, sequence.mask) == (expected, mask)
        lengths = {len(sequence.rewards), len(sequence.versions), len(expected)}
        assert len(lengths) == 1
        sampled = [n for n, one in zip(sequence.versions, mask, strict=True) if one]
        assert sampled == [version for one in tokens for version in _versions(one)]
        silent = any(one.logprobs is None and one.ids for one in tokens)
        assert (sequence.logprobs is None) == silent
        if sequence.logprobs is not None:
            kept = [p for p, one in zip(sequence.logprobs, mask, strict=True) if one]
            assert kept == [p for one in tokens for p in one.logprobs or ()]
        if sequence.ids:
            paid = [s.reward for s in episode.steps if s.turn in sequence.turns]
            assert math.isclose(sum(sequence.rewards), sum(paid), abs_tol=1e-9)
        assert sequence.reward == episode.total_reward
        assert not sequence.truncated


def _versions(tokens: TurnTokens) -> list[int]:
    if isinstance(tokens.version, list):
        return tokens.version
    return [-1 if tokens.version is None else tokens.version] * len(tokens.ids)


@settings(max_examples=50)
@given(episodes(), st.integers(1, 20))
def test_no_call_that_ran_is_cut(episode, limit):
    whole = episode.sequences()
    for cut, full in zip(episode.sequences(max_tokens=limit), whole, strict=True):
        assert len(cut.ids) <= limit
        assert cut.ids == full.ids[: len(cut.ids)]
        assert cut.mask == full.mask[: len(cut.mask)]
        assert cut.truncated == (len(full.ids) > limit)
        assert cut.reward == full.reward
        end = 0
        for number in cut.turns:
            turn = episode.turns[number]
            start = end + len(turn.tokens.prompt_ids)
            end = start + len(turn.tokens.ids)
            ran = any(step.turn == number and step.tool for step in episode.steps)
            if ran and len(cut.ids) < end:
                assert sum(cut.mask[start:]) == 0


def test_a_turn_is_paid_at_its_last_token():
    first = TurnTokens([1, 2], [3, 4], [-1.0, -2.0], version=5)
    second = TurnTokens([5], [6], [-3.0], version=[6])
    call = {"tool": "a", "input": {}}
    turns = [
        Turn([call, call], call_ids=["x", "y"], tokens=first),
        Turn([call], call_ids=["z"], tokens=second),
    ]
    steps = [
        Step(0, "x", "a", {}, [], 0.25),
        Step(0, "y", "a", {}, [], 0.5),
        Step(1, "z", "a", {}, [], 0.0, reward_is_null=True),
    ]
    episode = Episode("math", turns=turns, steps=steps, total_reward=0.75)
    (sequence,) = episode.sequences()
    assert sequence.rewards == [0.0, 0.0, 0.0, 0.75, 0.0, 0.0]
    assert sequence.logprobs == [0.0, 0.0, -1.0, -2.0, 0.0, -3.0]
    assert sequence.versions == [-1, -1, 5, 5, -1, 6]
    (cut,) = episode.sequences(max_tokens=5)
    assert (cut.ids, cut.truncated, cut.turns) == ([1, 2, 3, 4], True, [0])
    (cut,) = episode.sequences(max_tokens=3)
    assert (cut.ids, cut.mask, cut.rewards) == ([1, 2], [0, 0], [0.0, 0.0])


def test_a_file_from_before_tokens_is_read():
    turn = {"actions": ["hi"], "message": "hi", "extra": None, "call_ids": ["c"]}
    old = {"environment": "math", "turns": [turn], "steps": []}
    episode = Episode.from_json(json.dumps(old))
    assert episode.turns[0].tokens is None
    assert "tokens" not in episode.to_dict()["turns"][0]
    assert "sampled_tokens" not in episode.metrics()
    with pytest.raises(InvalidRequestError, match="turn 0 has no tokens"):
        episode.sequences()


@pytest.mark.parametrize(
    "tokens",
    [
        7,
        {"prompt_ids": [1]},
        {"prompt_ids": [1], "ids": ["a"]},
        {"prompt_ids": "12", "ids": []},
        {"prompt_ids": [], "ids": [1], "logprobs": [None]},
        {"prompt_ids": [], "ids": [1], "logprobs": []},
        {"prompt_ids": [], "ids": [-1]},
        {"prompt_ids": [], "ids": [1], "version": [1, 2]},
        {"prompt_ids": [], "ids": [], "what": 1},
    ],
)
def test_what_are_no_tokens_is_no_episode(tokens):
    turn = {"actions": ["hi"], "call_ids": ["c"], "tokens": tokens}
    with pytest.raises(InvalidRequestError):
        Episode.from_dict({"environment": "math", "turns": [turn]})


def test_an_engine_may_give_arrays():
    ids: Any = np.array([1, 2])
    logprobs: Any = np.array([-1.0, 0.0])
    version: Any = np.int64(3)
    given = Generated(ids, logprobs, version=version)
    assert (given.ids, given.logprobs, given.version) == ([1, 2], [-1.0, 0.0], 3)
    assert all(type(one) is int for one in [*given.ids, given.version])
    assert Generated(ids, version=ids).version == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (([1.5],), "whole numbers"),
        (([-1],), "0 or more"),
        (([1], [-0.5, -0.5]), "2 logprobs for 1 ids"),
        (([1], [math.nan]), "no finite number"),
        (([1], ["x"]), "numbers"),
        (([1], None, "stop", [1, 2]), "2 versions for 1 ids"),
        (("text",), "whole numbers"),
    ],
)
def test_an_engine_that_gives_nonsense_is_told_so(arguments, why):
    with pytest.raises(InvalidRequestError, match=why):
        Generated(*arguments)


def test_no_limit_of_no_tokens():
    with pytest.raises(InvalidRequestError, match="at least 1"):
        Episode("math").sequences(max_tokens=0)
