"""The limits of an evaluation and of a stream, on real servers."""

import asyncio
import json
import threading
from typing import Any

import pytest

from ors_gym.evaluation import Evaluation, evaluate
from ors_gym.rollout import Episode, Group, Turn, stream_groups
from tests.evaluation.contract_evaluations import play
from tests.rollout.contract_episodes import ADD
from tests.testing.small_server import Answer, Session, Sums, serving

COST: Any = {"output": 1e6, "input": 0}
PRICES: Any = {"m": COST}
"""One for each token."""
CONCURRENT = 4


class Meter:
    """A policy of two turns that counts what it uses; all of them begin together."""

    def __init__(self, tokens: int = 10, end: str = "") -> None:
        self.tokens = tokens
        self.end = end
        self.turns = self.under_way = self.most_under_way = 0

    async def __call__(self, episode: Episode) -> Turn:
        self.turns += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        right = str(2 * episode.task_index)
        submit = {"tool": "submit", "input": {"answer": right}}
        usage = {"prompt_tokens": 7, "completion_tokens": self.tokens}
        extra = {"model": "m-2025-01-01", "usage": usage}
        return Turn(submit if episode.steps else ADD, extra=extra)

    @property
    def cost(self) -> int:
        return self.turns * self.tokens


def test_a_run_ends_at_its_cost_and_goes_on_with_a_higher_one(server, tmp_path):
    output = tmp_path / "run.jsonl"
    meter = Meter()
    options: Any = {"output": output, "max_concurrent": CONCURRENT, "policy_name": "m"}
    options |= {"prices": PRICES, "episodes_per_task": 5}
    found = play(server, range(12), meter, max_cost=105, **options)
    assert 105 <= meter.cost < 105 + 10 * CONCURRENT
    assert found.stopped == f"max_cost: {meter.cost} of 105 used"
    assert found.usage["cost"] == meter.cost
    assert found.usage["output_tokens"] == meter.cost
    assert found.errors.get("run_limit", 0) <= CONCURRENT
    assert found.outcomes + found.errors["run_limit"] == len(found.records)
    assert f"cost {meter.cost}" in str(found)
    assert f"max_cost: {meter.cost} of 105 used" in str(found)
    # What it cost counts, also that of episodes that are played again.
    more = Meter()
    again = play(server, range(12), more, max_cost=meter.cost, **options)
    assert (more.turns, again.outcomes) == (0, found.outcomes)
    again = play(server, range(12), more, max_cost=meter.cost + 55, **options)
    assert 55 <= more.cost < 55 + 10 * CONCURRENT
    assert again.usage["cost"] == meter.cost + more.cost
    last = Meter()
    again = play(server, range(12), last, max_cost=10_000, **options)
    assert (again.outcomes, again.stopped) == (60, "")
    assert again.usage["cost"] == meter.cost + more.cost + last.cost
    assert Evaluation.load(output).usage == again.usage
    server.wait_until_none_is_open()


def test_tokens_and_a_reported_cost_end_a_run_too(contract):
    options: Any = {"max_concurrent": CONCURRENT, "episodes_per_task": 20}
    meter = Meter()
    found = play(contract, range(12), meter, max_tokens=100, **options)
    assert 100 <= 17 * meter.turns < 100 + 17 * CONCURRENT
    assert found.stopped == f"max_tokens: {17 * meter.turns} of 100 used"
    assert found.usage["input_tokens"] == 7 * meter.turns

    def policy(episode: Episode) -> Turn:
        submit = {"tool": "submit", "input": {"answer": "0"}}
        return Turn(submit, extra={"usage": {"cost": 0.25}})

    found = play(contract, range(12), policy, max_cost=1, max_concurrent=1)
    assert (found.outcomes, found.stopped) == (4, "max_cost: 1 of 1 used")
    assert found.usage == {"cost_usd": 1.0}
    # At the very end of the run, nothing is missing.
    found = play(contract, range(4), policy, max_cost=1, max_concurrent=1)
    assert (found.outcomes, found.stopped) == (4, "")


def test_a_policy_that_does_not_say_what_it_uses_cannot_be_limited(contract):
    submit = {"tool": "submit", "input": {"answer": "0"}}
    found = play(contract, range(12), lambda _: submit, max_cost=1, max_concurrent=1)
    assert len(found.records) == 1
    assert "max_cost: it cannot be watched" in found.stopped


def test_seconds_end_what_is_in_flight(server):
    hanging = threading.Event()

    async def policy(episode: Episode) -> None:
        hanging.set()
        await asyncio.Event().wait()

    found = play(server, range(12), policy, max_seconds=0.5, max_concurrent=3)
    assert hanging.is_set()
    assert found.stopped == "max_seconds: 0.5 s are over"
    assert found.errors == {"run_limit": 3}
    server.wait_until_none_is_open()


class Dying(Sums):
    """Opens a few sessions, and no more."""

    def __init__(self, opens: int) -> None:
        super().__init__()
        self.left = opens
        self.refusals = 0

    def tasks(self, split: str) -> list[Any]:
        return [{"id": f"{split}-{index}"} for index in range(10_000)]

    def create(self, session_id: str, body: dict[str, Any]) -> Answer:
        if self.left <= 0:
            self.refusals += 1
            return 500, {"detail": "no memory"}
        self.left -= 1
        self.sessions[session_id] = super_session()
        return 200, {"sid": session_id}


def super_session() -> Any:

    return Session()


async def solve(_: Episode) -> Any:
    return {"tool": "submit", "input": {"answer": "2"}}


def test_a_dead_server_ends_a_run_of_many_tasks_after_so_many_outages():
    dying = Dying(opens=50)
    with serving(dying) as base_url:
        work: Any = (base_url, "sums", range(10_000), solve)
        found = evaluate(
            *work, split="train", max_outages=20, max_concurrent=8, progress=False
        )
    assert found.outcomes == 50
    assert found.errors.pop("run_limit", 0) < 8
    lost = sum(found.errors.values())
    assert 20 <= lost < 20 + 8
    told = f"max_outages: {lost} attempts ended without an outcome, of 20 allowed"
    assert found.stopped == told
    assert dying.refusals < 20 + 8


def test_a_policy_that_cannot_be_made_is_an_outage_of_the_run(one_server):
    def make_policy() -> Any:
        raise ConnectionError("the model's server is down")

    found = evaluate(
        *(one_server.base_url, "Contract", range(12)),
        policy_factory=make_policy,
        split="train",
        max_outages=5,
        max_concurrent=2,
        progress=False,
    )
    assert found.stopped.startswith("max_outages: 5 attempts ended without an outcome")
    assert found.errors["policy"] == 5


@pytest.mark.parametrize("max_concurrent", [1, 4])
def test_a_policy_that_fails_after_its_episodes_is_one_too(one_server, max_concurrent):
    class Failing:
        async def __call__(self, episode: Episode) -> Any:
            return {"tool": "submit", "input": {"answer": "0"}}

        def end_episode(self, episode: Episode) -> None:
            raise OSError("the log cannot be written")

    found = evaluate(
        *(one_server.base_url, "Contract", range(12), Failing()),
        split="train",
        max_outages=5,
        max_concurrent=max_concurrent,
        progress=False,
    )
    assert found.stopped.startswith("max_outages: ")
    assert 5 <= found.errors["policy"] < 5 + max_concurrent


def take(base_url: str, policy: Any, **options: Any) -> tuple[list[Group], str]:
    async def main() -> tuple[list[Group], str]:
        groups = stream_groups(base_url, policy=policy, split="train", **options)
        async with asyncio.timeout(60):
            return [group async for group in groups], groups.stopped

    return asyncio.run(main())


def test_a_dead_server_ends_a_stream_and_only_whole_groups_are_handed_over():
    with serving(Dying(opens=51)) as base_url:
        options: Any = {"env_name": "sums", "tasks": range(10_000), "n": 4}
        options |= {"max_concurrent": 8, "max_outages": 20, "incomplete": "raise"}
        options["attempts"] = 100
        groups, stopped = take(base_url, solve, **options)
    assert 9 <= len(groups) <= 12
    assert all(group.complete for group in groups)
    assert stopped.startswith("max_outages: 2")


def test_a_stream_ends_at_its_cost_and_goes_on_with_a_higher_one(server, tmp_path):
    output = tmp_path / "stream.jsonl"
    options: Any = {"env_name": "Contract", "tasks": range(12), "n": 3}
    options |= {"max_concurrent": CONCURRENT, "output": output, "prices": PRICES}
    options |= {"policy_name": "m"}
    meter, more, last = Meter(), Meter(), Meter()
    groups, stopped = take(server.base_url, meter, max_cost=205, **options)
    assert 205 <= meter.cost < 205 + 10 * CONCURRENT
    assert stopped == f"max_cost: {meter.cost} of 205 used"
    assert 0 < len(groups) < 12
    assert all(group.complete for group in groups)
    held = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    assert sum(row["trajectory"]["cost"] or 0 for row in held) == meter.cost
    _, stopped = take(server.base_url, more, max_cost=meter.cost, **options)
    assert (more.turns, stopped) == (0, f"max_cost: {meter.cost} of {meter.cost} used")
    groups, stopped = take(server.base_url, last, max_cost=10_000, **options)
    assert (len(groups), stopped) == (12, "")
    # Outcomes of groups that were not over were kept, and not played again.
    outcomes = sum(row["total_reward"] is not None for row in held)
    assert last.turns == 2 * (36 - outcomes)
    assert Evaluation.load(output).usage["cost"] == meter.cost + last.cost
    server.wait_until_none_is_open()


@pytest.mark.parametrize("name", ["max_cost", "max_tokens", "max_outages"])
def test_a_limit_of_nothing_is_refused(contract, name):
    with pytest.raises(Exception, match=f"{name} must be a number above 0"):
        play(contract, range(1), solve, **{name: 0})
