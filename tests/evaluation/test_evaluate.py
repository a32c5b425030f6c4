"""What evaluate takes, and what it does with policies and failures."""

import asyncio
import contextlib
import math
import threading
from typing import Any

import pytest

from ors_gym import AsyncORSClient, ORSClient, ORSEnv
from ors_gym.errors import InvalidRequestError, UnknownEnvironmentError
from ors_gym.evaluation import Evaluation, evaluate, parallel_evaluate
from ors_gym.registration import BUNDLED_NAMES, BUNDLED_REWARDS
from ors_gym.rollout import random_policy, reference_policy
from tests.evaluation.contract_evaluations import answer, play, submit, unfold
from tests.support.proxy.faults import Answer


def test_as_many_episodes_as_allowed_are_played_at_once_and_no_more(contract):
    together, lock = threading.Barrier(6, timeout=30), threading.Lock()
    now, most = 0, 0

    def policy(episode):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1

    found = play(contract, range(12), policy, max_concurrent=6)
    assert found.stop_reasons == {"policy_stopped": 12}
    assert most == 6


def test_evaluate_works_inside_a_running_loop(contract):
    async def main() -> tuple[float, float]:
        async with AsyncORSClient(contract.base_url) as client:
            await client.list_environments()
            inside = evaluate(client, "Contract", [0], submit, progress=False)
            work = parallel_evaluate(client, "Contract", [0], submit, progress=False)
            beside = await work
        return inside.success_rate, beside.success_rate

    assert asyncio.run(main()) == (1.0, 1.0)


def test_evaluate_from_its_own_loop_says_what_to_do(contract):
    async def policy(episode):
        evaluate(contract.base_url, "Contract", [0], submit, progress=False)

    found = play(contract, [0], policy)
    assert "parallel_evaluate" in found.results[0]["error"]


def test_a_policy_without_a_readable_call_is_told_of(contract):
    with pytest.warns(UserWarning, match="'guess 8'") as warned:
        found = play(contract, [0] * 20, lambda episode: "guess 8", max_turns=2)
    assert len(warned) == 1
    said = '20 of 20 episodes ended without a readable call; the first was "guess 8"'
    assert said in found.warnings[0]
    assert said in unfold(str(found))

    def some(episode):
        return submit(episode) if episode.steps or episode.task_index else {"tool": 8}

    assert not play(contract, range(2), some).warnings
    with pytest.warns(UserWarning, match="null"):
        found = play(contract, [0], lambda episode: '{"tool": null}', max_turns=1)
    assert 'the first was "{"tool": null}"' in unfold(str(found))


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


@pytest.mark.parametrize("number", ["1e999", "-1E400", "NaN", "[" * 300 + "]" * 300])
def test_a_number_that_is_not_finite_is_one_lost_episode(proxy, tmp_path, number):
    result = (
        '{"ok":true,"output":{"blocks":[{"type":"text","text":"","more":0}],'
        f'"metadata":{{"x":{number}}},"reward":1.0,"finished":true}}}}'
    )
    body = f"event: task_id\r\ndata: 7f\r\n\r\nevent: end\r\ndata: {result}\r\n\r\n"
    odd = Answer(200, body=body.encode(), ran=True, content_type="text/event-stream")
    proxy.plan("/call", [odd])
    options = {"output": tmp_path / "run.jsonl", "progress": False, "split": "train"}
    work = (proxy.url, "Contract", range(4), submit)
    first = evaluate(*work, **options)
    assert first.errors == {"protocol": 1}
    assert first.outcomes == 3
    second = evaluate(*work, **options)
    assert second.outcomes == 4
    assert len(proxy.requests("/call")) == 5


def test_an_episode_that_cannot_be_written_is_a_row_and_no_outcome(contract, tmp_path):
    def spoil(episode):
        if episode.task_index == 2:
            episode.steps[0].metadata = {"x": float("inf")}
        return True

    output = tmp_path / "run.jsonl"
    found = play(contract, range(4), submit, output=output, success=spoil)
    assert found.errors == {"output": 1}
    assert found.outcomes == 3
    assert "Out of range float values" in found.results[2]["error"]
    assert Evaluation.load(output).errors == found.errors
    contract.mark()
    again = play(contract, range(4), submit, output=output, success=spoil)
    assert (again.errors, contract.runs("submit")) == ({"output": 1}, 1)


def test_a_task_that_is_not_json_is_refused(contract):
    for task in ({"x": float("nan")}, {"x": {1}}):
        with pytest.raises(InvalidRequestError, match="a task spec is JSON"):
            play(contract, [task])


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


@pytest.mark.parametrize(
    ("tasks", "options"),
    [
        *((tasks, {}) for tasks in ([12], [-1], ["0"], "0", {"id": 3})),
        ([("nowhere", 1)], {}),
        ([0], {"split": "nowhere"}),
        ([0], {"episodes_per_task": 0}),
        ([0], {"max_concurrent": 0}),
        ([0], {"max_tuns": 3}),
        ([0], {"seed": -1}),
        ([0], {"reward_reduction": "median"}),
        ([0], {"policy_factory": lambda: answer}),
    ],
)
def test_what_cannot_be_right_is_refused_before_any_play(contract, tasks, options):
    with pytest.raises(InvalidRequestError):
        play(contract, tasks, **options)
    with pytest.raises(InvalidRequestError, match="policy"):
        play(contract, [0], None)
    assert not contract.log("construct")


def test_a_client_with_a_transport_of_its_own_is_refused(contract):
    import httpx

    with (
        httpx.Client() as own,
        ORSClient(contract.base_url, client=own) as client,
        pytest.raises(InvalidRequestError, match="parallel_evaluate"),
    ):
        evaluate(client, "Contract", [0], submit, progress=False)


def test_an_answer_that_is_no_action_fails_its_episode_at_once(contract):
    found = play(contract, range(2), random_policy)
    assert found.errors == {"policy": 2}
    words = "the policy returned a function, which is no action (was it called"
    assert all(words in row["error"] for row in found["results"])
    assert all(row["steps"] == 0 for row in found["results"])


def test_a_forgotten_client_is_named():
    words = r"the order is evaluate\(client, env_name, tasks, policy\)"
    with pytest.raises(InvalidRequestError, match=words):
        evaluate("guess", range(2), random_policy(0))  # type: ignore[arg-type]


def test_an_env_in_place_of_a_client_and_an_id_in_place_of_a_name_are_told(contract):
    with contextlib.closing(ORSEnv("contract", contract.base_url)) as env:
        words = "client is a ORSEnv; it takes an ORSClient"
        with pytest.raises(InvalidRequestError, match=words):
            evaluate(env, "contract", [0], submit)  # type: ignore[arg-type]
    with pytest.raises(UnknownEnvironmentError, match=r"Did you mean 'contract'\?$"):
        evaluate(contract.base_url, "ors/contract", [0], submit)


def test_secrets_are_not_written(contract, tmp_path):
    path = tmp_path / "run.jsonl"
    secret = {"secrets": {"KEY": "hunter22"}, "session_options": {"own": "hunter33"}}
    play(contract, [0], lambda episode: None, output=path, **secret)
    assert "hunter" not in path.read_text()


def test_a_run_goes_on_with_more_episodes_per_task(contract, tmp_path):
    def run(**options: Any) -> Evaluation:
        output = tmp_path / "run.jsonl"
        return play(contract, range(3), submit, output=output, **options)

    assert len(run().results) == 3
    for _ in range(2):
        assert len(run(episodes_per_task=3).results) == 9
        assert len(contract.log("construct")) == 9
    with pytest.raises(InvalidRequestError, match="limits"):
        run(max_turns=5)
    with pytest.raises(InvalidRequestError, match="policy"):
        run(policy_name="other")


def test_a_range_of_rewards_without_an_end_is_kept_in_the_output(tmp_path):
    output, endless = tmp_path / "run.jsonl", (0.0, math.inf)
    for count in (1, 2):
        found = evaluate(
            None,
            "math",
            range(count),
            reference_policy(),
            output=output,
            reward_range=endless,
            progress=False,
        )
        assert found.reward_range == endless
        assert Evaluation.load(output).reward_range == endless
        assert Evaluation.load(output).head["limits"]["reward_range"] == [0, None]


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_rewards_of_bundled_environments_are_within_the_range_that_is_known(name):
    for policy in (random_policy(0), reference_policy()):
        found = evaluate(None, name, range(8), policy, max_turns=40, progress=False)
        low, high = BUNDLED_REWARDS[name]
        assert found.reward_range == (low, high)
        assert found.outcomes == 8
        assert all(low <= reward <= high for reward in found.rewards)
