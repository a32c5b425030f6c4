"""What evaluate takes, and what it does with policies, tasks and failures."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from ors_gym import AsyncORSClient, ORSClient
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.evaluation import Evaluation, evaluate, parallel_evaluate
from ors_gym.evaluation._player import Pace
from ors_gym.protocol._retries import Retry
from ors_gym.rollout import Episode
from tests.evaluation.running import answer


@pytest.fixture
def contract(shared_server):
    return shared_server("ors-sdk-0.1.0")


def play(server, tasks=range(4), policy=answer, **options: Any) -> Evaluation:
    options = {"split": "train", "progress": False, **options}
    return evaluate(server.base_url, "Contract", tasks, policy, **options)


def submit(episode: Episode) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": "0"}}


def test_as_many_episodes_as_allowed_are_played_at_once(contract):
    most = threading.Barrier(6, timeout=30)

    def policy(episode):
        most.wait()

    found = play(contract, range(12), policy, max_concurrent=6)
    assert found.stop_reasons == {"policy_stopped": 12}


def test_never_more_episodes_are_played_than_allowed(contract):
    now, most, lock = 0, 0, threading.Lock()

    def policy(episode):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    play(contract, range(12), policy, max_concurrent=3)
    assert 1 <= most <= 3


def test_evaluate_works_inside_a_running_loop(contract):
    async def main() -> tuple[float, float]:
        async with AsyncORSClient(contract.base_url) as client:
            await client.list_environments()
            inside = evaluate(client, "Contract", [0], submit, progress=False)
            beside = await parallel_evaluate(
                client, "Contract", [0], submit, progress=False
            )
        return inside.success_rate, beside.success_rate

    assert asyncio.run(main()) == (1.0, 1.0)


def test_evaluate_from_its_own_loop_says_what_to_do(contract):
    async def policy(episode):
        evaluate(contract.base_url, "Contract", [0], submit, progress=False)

    found = play(contract, [0], policy)
    assert "parallel_evaluate" in found.results[0]["error"]


def test_a_policy_that_raises_is_a_row_and_no_outcome(contract):
    def policy(episode):
        if episode.task_index == 2:
            raise ZeroDivisionError("by the model")
        return submit(episode)

    found = play(contract, range(4), policy)
    assert [row["success"] for row in found.results] == [True, False, None, False]
    assert found.results[2]["error"] == "ZeroDivisionError: by the model"
    assert found.errors == {"policy": 1}
    assert found.success_rate == pytest.approx(1 / 3)
    contract.wait_for("teardown", 4)
    assert not contract.open_sessions()


def test_a_success_function_that_raises_is_a_row(contract):
    found = play(contract, range(2), success=lambda episode: 1 / episode.task_index)
    assert found.errors == {"success": 1}
    assert found.results[1]["success"] is True


def test_success_by_threshold_and_by_function(contract):
    assert play(contract, range(2), submit, success=0.0).success_rate == 1.0
    assert play(contract, range(2), submit, success=1.5).success_rate == 0.0
    found = play(contract, range(2), submit, success=lambda e: e.task_index == 1)
    assert [row["success"] for row in found.results] == [False, True]


def test_each_episode_has_a_policy_and_a_seed_of_its_own(contract):
    made, seeds = [], []

    def factory():
        made.append(object())

        def policy(episode):
            seeds.append((episode.task_index, episode.number, episode.seed))

        return policy

    play(contract, range(2), None, policy_factory=factory, episodes_per_task=2, seed=7)
    assert len(made) == 4
    assert sorted(seeds) == [(0, 0, 7), (0, 1, 8), (1, 0, 7), (1, 1, 8)]


def test_tasks_of_all_kinds_are_told_apart(contract):
    spec = {"id": "mine", "question": "q", "answer": "0"}
    tasks = [1, spec, ("test", 1), 1, spec]
    found = play(contract, tasks, submit)
    rows = [(r.get("task_index"), r["split"], r["episode"]) for r in found.results]
    assert rows == [
        *((1, "train", 0), (None, "train", 0), (1, "test", 0)),
        *((1, "train", 1), (None, "train", 1)),
    ]
    assert [row["split"] for row in found.by_split] == ["test", "train"]


def test_no_tasks_named_means_the_whole_split(contract):
    assert len(play(contract, None, submit, split="test").results) == 5


def test_specs_need_no_split(contract):
    with ORSClient(contract.base_url) as client:
        tasks = client.list_tasks("NoTrain", "test")
        found = evaluate(client, "NoTrain", tasks[:2], submit, progress=False)
        assert found.success_rate == 0.5
        with pytest.raises(UnknownTaskError, match="pass split="):
            evaluate(client, "NoTrain", [0], submit, progress=False)


@pytest.mark.parametrize(
    ("tasks", "options"),
    [
        ([12], {}),
        ([-1], {}),
        (["0"], {}),
        ("0", {}),
        ({"id": 3}, {}),
        ([("nowhere", 1)], {}),
        ([0], {"split": "nowhere"}),
        ([0], {"episodes_per_task": 0}),
        ([0], {"max_concurrent": 0}),
        ([0], {"max_tuns": 3}),
        ([0], {"reward_reduction": "median"}),
        ([0], {"policy_factory": lambda: answer}),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_played(
    contract, tasks, options
):
    with pytest.raises(InvalidRequestError):
        play(contract, tasks, **options)
    assert not contract.log("construct")


def test_a_policy_is_needed(contract):
    with pytest.raises(InvalidRequestError, match="policy"):
        play(contract, [0], None)


def test_a_task_itself_is_only_in_rows_without_an_index(contract, tmp_path):
    output = tmp_path / "run.jsonl"
    spec = {"id": "mine", "question": "q", "answer": "xyzzy"}
    play(contract, [5, spec], submit, output=output)
    _, by_index, by_spec = output.read_text().splitlines()
    rows = sorted(
        [json.loads(by_index), json.loads(by_spec)], key=lambda r: "task" in r
    )
    assert "answer" not in json.dumps({**rows[0], "trajectory": None})
    assert '"10"' not in json.dumps(rows[0])
    assert rows[1]["task"] == spec
    assert "xyzzy" not in json.dumps(rows[1]["trajectory"])
    assert "task_index" not in rows[1]


def test_on_episode_is_told_and_may_stop_everything(contract):
    told = []

    async def on_episode(episode):
        told.append(episode.task_index)

    play(contract, range(4), submit, on_episode=on_episode)
    assert sorted(told) == [0, 1, 2, 3]

    def refuse(episode):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(contract, range(12), submit, on_episode=refuse, max_concurrent=2)
    contract.wait_for("teardown", len(contract.log("construct")))
    assert not contract.open_sessions()


def test_a_progress_bar_shows_running_figures(contract, capsys):
    play(contract, range(4), progress=True)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "success=75.0%" in shown


def test_a_client_with_a_transport_of_its_own_is_refused(contract):
    import httpx

    with (
        httpx.Client() as own,
        ORSClient(contract.base_url, client=own) as client,
        pytest.raises(InvalidRequestError, match="parallel_evaluate"),
    ):
        evaluate(client, "Contract", [0], submit, progress=False)


def test_the_pace_halves_once_per_burst_and_recovers():
    pace = Pace(16)
    busy = Retry("POST /create", "status 429", 1, 0.1)
    for _ in range(10):
        pace.note(busy)
    assert pace.limit == 8
    pace.note(Retry("POST /create", "reset", 1, 0.1))
    assert pace.limit == 8
    for _ in range(8):
        pace.end()
    pace.note(busy)
    assert pace.limit == pytest.approx(8.125 / 2)
    for _ in range(500):
        pace.end()
    assert pace.limit == 16
