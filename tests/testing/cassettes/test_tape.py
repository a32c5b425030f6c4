"""Which recorded reply answers a request."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.testing._cassettes.rows import Reply, Request, Row
from ors_gym.testing._cassettes.tape import NotRecordedError, Tape, difference

pytestmark = pytest.mark.unit

Session = tuple[int, Sequence[tuple[int, int]]]
"""The index of a task, then calls: an argument, and what it was answered."""


def create(index: int) -> Request:
    body = {"env_name": "e", "split": "train", "index": index}
    return Request("POST", "/create", body)


def call(number: int) -> Request:
    return Request("POST", "/e/call", {"name": "t", "input": {"n": number}})


def told(value: Any) -> Reply:
    return Reply(200, "json", value)


def tape_of(*sessions: Session) -> Tape:
    rows = []
    for number, (index, calls) in enumerate(sessions, 1):
        rows.append(Row(create(index), told({}), number))
        rows += [Row(call(n), told(reply), number) for n, reply in calls]
    return Tape(rows)


small = st.integers(0, 2)
sessions = st.lists(
    st.tuples(small, st.lists(st.tuples(small, small), max_size=4)),
    min_size=1,
    max_size=6,
)


@given(sessions, small, st.lists(small, max_size=5))
def test_what_is_told_was_recorded_like_that(
    recorded: list[Session], index: int, arguments: list[int]
):
    """Whatever is asked, the replies are those of one recorded session, or refused."""
    tape = tape_of(*recorded)
    seen: list[tuple[int, int]] = []
    mine = [list(calls) for task, calls in recorded if task == index]
    try:
        session, _ = tape.open(create(index))
        for one in arguments:
            seen += [(one, session.answer(call(one)).content)]
    except NotRecordedError:
        wanted = arguments[: len(seen) + 1]
        begun = [calls for calls in mine if calls[: len(seen)] == seen]
        assert (
            not any(
                [argument for argument, _ in calls[: len(wanted)]] == wanted
                and len(calls) >= len(wanted)
                for calls in begun
            )
            or not mine
        )
    else:
        assert any(calls[: len(seen)] == seen for calls in mine)


@given(sessions)
def test_every_session_is_played_in_its_turn(recorded: list[Session]):
    tape = tape_of(*recorded)
    for _ in range(2):
        for index, calls in recorded:
            session, _ = tape.open(create(index))
            for argument, reply in calls:
                found = session.answer(call(argument)).content
                if found != reply:
                    # An equal call was answered otherwise in a session of the task
                    # that this one cannot be told from.
                    others = [other for task, other in recorded if task == index]
                    assert sum((argument, found) in other for other in others)
                    break


def test_a_question_that_is_asked_twice_gets_both_answers():
    prompt = Request("GET", "/e/prompt")
    rows = [
        Row(create(0), told({}), 1),
        *(Row(prompt, told(text), 1) for text in ("one", "two")),
        Row(call(1), told("called"), 1),
        Row(prompt, told("three"), 1),
    ]
    session, _ = Tape(rows).open(create(0))
    asked = [session.answer(prompt).content for _ in range(3)]
    assert asked == ["one", "two", "two"]
    session.answer(call(1))
    assert session.answer(prompt).content == "three"


def test_what_keeps_and_ends_a_session_needs_no_recording():
    session, _ = tape_of((0, [])).open(create(0))
    assert session.answer(Request("POST", "/ping")).content == {"status": "ok"}
    assert session.answer(Request("POST", "/delete")).status == 200


def test_of_two_answers_without_a_session_the_last_counts():
    question = Request("GET", "/e/splits")
    tape = Tape([Row(question, told("old")), Row(question, told("new"))])
    assert tape.answer(question).content == "new"
    # Some clients name a session with every question.
    assert tape.answer(Request(*("GET", "/e/splits"), routed=True)).content == "new"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Request("GET", "/e/tools"), "GET /e/tools was not recorded"),
        (
            Request("POST", "/e/num_tasks", {"split": "tset"}),
            r'nearest that was: POST /e/num_tasks .*\(split is "tset", was "test"\)',
        ),
    ],
)
def test_a_refusal_names_what_is_nearest(asked: Request, said: str):
    known = ("train", "test")
    tape = Tape(
        [Row(Request("POST", "/e/num_tasks", {"split": s}), told(1)) for s in known]
    )
    with pytest.raises(NotRecordedError, match=said):
        tape.answer(asked)


def test_the_nearest_call_is_one_of_the_same_tool():
    other = Request("POST", "/e/call", {"name": "look", "input": {"n": 5}})
    rows = [
        Row(create(0), told({}), 1),
        Row(other, told(1), 1),
        Row(create(0), told({}), 2),
        Row(call(4), told(1), 2),
    ]
    session, _ = Tape(rows).open(create(0))
    said = r't {"n": 5} as call 1 of e .*"index": 0.*: t {"n": 4} \(input.n is 5, was 4'
    with pytest.raises(NotRecordedError, match=said):
        session.answer(call(5))
    huge = Request("POST", "/e/call", {"name": "t", "input": {"n": "x" * 10**6}})
    with pytest.raises(NotRecordedError) as caught:
        session.answer(huge)
    # A client shows 500 characters of it.
    assert len(str(caught.value)) < 460


@pytest.mark.parametrize(
    ("wanted", "recorded", "said"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 1.0}, "a is 1, was 1.0"),
        ({"a": True}, {"a": 1}, "a is true, was 1"),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": 2}]}, "a[1].b is null, was 2"),
        ({}, {"a": "x"}, "the body is {}, was absent"),
        ("x", None, 'the body is "x", was null'),
    ],
)
def test_the_first_difference_is_named(wanted: Any, recorded: Any, said: str):
    assert difference(wanted, recorded) == said
