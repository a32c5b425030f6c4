"""The parts of ``engine="ray"`` that need no Ray."""

import asyncio
import json
import pickle
import sys
from typing import Any

import pytest

from ors_gym.errors import (
    AuthenticationError,
    InvalidRequestError,
    MissingExtraError,
    ORSError,
)
from ors_gym.evaluation import Record, evaluate
from ors_gym.rollout import Episode, stream_groups
from ors_gym.rollout._ray import _pickle_error, read_played
from tests.evaluation.contract_evaluations import answer

pytestmark = pytest.mark.unit


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[ray\]"'):
        evaluate("http://127.0.0.1:9", "math", [0], answer, engine="ray")


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "dask"},
        {"actors": 2},
        {"actor_options": {"num_cpus": 1}},
        {"engine": "ray", "actors": 0},
    ],
)
def test_engines_that_cannot_be_right_are_refused(options):
    for play in (evaluate, stream_groups):
        with pytest.raises(InvalidRequestError):
            play("http://127.0.0.1:9", "math", [0], answer, **options)


def test_a_row_travels_with_the_error_that_ended_it():
    episode = Episode("math", 3, "test", 1)
    episode.fail(AuthenticationError("no", status=401), "policy")
    row: dict[str, Any] = {"row": json.dumps(Record(episode, None).row())}
    row |= {"cause": b"", "raised": b""}
    assert read_played(row).episode == episode
    assert read_played(row).episode.cause is None
    found = read_played(row | {"cause": pickle.dumps(episode.cause)})
    assert isinstance(found.episode.cause, AuthenticationError)
    assert found.episode.cause.status == 401
    assert found.key == ("test", 3, 1)


class OwnError(Exception):
    """A class that another process may not know."""


class UnpicklableError(ValueError):
    def __reduce__(self):
        raise TypeError("it holds a lock")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("x"), ZeroDivisionError),
        (AuthenticationError("x"), AuthenticationError),
        (SystemExit("x"), SystemExit),
        (KeyboardInterrupt("x"), KeyboardInterrupt),
        (OwnError("x"), ORSError),
        (UnpicklableError("x"), ORSError),
        (GeneratorExit("x"), SystemExit),
    ],
)
def test_what_is_raised_on_a_worker_is_raised_here(error, kind):
    reply = {"row": "", "cause": b"", "raised": _pickle_error(error)}
    with pytest.raises(kind, match="x") as raised:
        read_played(reply)
    assert type(raised.value) is kind


def test_a_rollout_that_was_cancelled_on_a_worker_is_cancelled_here():
    with pytest.raises(asyncio.CancelledError):
        read_played({"row": "", "cause": b"", "raised": b""})
