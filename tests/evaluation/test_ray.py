"""The parts of ``engine="ray"`` that need no Ray."""

import asyncio
import json
import pickle
import sys

import pytest

from ors_gym.errors import AuthenticationError, InvalidRequestError, MissingExtraError
from ors_gym.evaluation import Record, evaluate
from ors_gym.evaluation._ray import Gate, read_played
from ors_gym.rollout import Episode
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
    with pytest.raises(InvalidRequestError):
        evaluate("http://127.0.0.1:9", "math", [0], answer, **options)


def test_the_gate_counts_starts_and_lets_nothing_begin_once_closed():
    async def main() -> list[int]:
        gate = Gate()
        await gate.begin("c")
        await gate.end("c")
        begun = [await gate.begin("a"), await gate.begin("a"), await gate.begin("b")]
        closing = asyncio.create_task(gate.close())
        await asyncio.wait_for(gate.wait(), 5)
        await gate.end("b")
        assert not closing.done()
        # The worker of "a" is gone; another tries it again.
        begun.append(await gate.begin("a"))
        await asyncio.wait_for(closing, 5)
        # A closed gate waits for nobody where nothing is under way.
        await asyncio.wait_for(gate.close(), 5)
        return begun

    assert asyncio.run(main()) == [1, 2, 1, 0]


def test_a_row_travels_with_the_error_that_ended_it():
    episode = Episode("math", 3, "test", 1)
    episode.fail(AuthenticationError("no", status=401), "policy")
    row = {"row": json.dumps(Record(episode, None).row()), "cause": b""}
    assert read_played(row).episode == episode
    assert read_played(row).episode.cause is None
    found = read_played(row | {"cause": pickle.dumps(episode.cause)})
    assert isinstance(found.episode.cause, AuthenticationError)
    assert found.episode.cause.status == 401
    assert found.key == ("test", 3, 1)
