"""What is told of episodes as they end, and when a run stops before its end."""

import asyncio
from typing import Any

import pytest

import ors_gym
from ors_gym.env._task_order import Task
from ors_gym.evaluation import Evaluation
from ors_gym.evaluation._collector import Collector, ProgressBar
from ors_gym.evaluation._loggers import Loggers
from ors_gym.evaluation._plan import Plan
from ors_gym.rollout import ChatPolicy
from tests.evaluation.contract_evaluations import answer, make_record, play, submit
from tests.rollout.chat_server import running_chat_server


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
    contract.wait_until_none_is_open()


def test_a_progress_bar_shows_running_figures(contract, capsys, tmp_path):
    output = tmp_path / "run.jsonl"
    play(contract, range(4), progress=True, output=output)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "success=75.0%" in shown
    assert "already" not in shown
    play(contract, range(4), progress=True, output=output)
    assert "4 of 4 already played" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, ors_gym.AuthenticationError, "the key is refused"),
        (404, ors_gym.InvalidRequestError, "the request is refused"),
    ],
)
def test_a_wrong_key_or_model_is_one_error(contract, tmp_path, status, error, said):
    output = tmp_path / "run.jsonl"
    with running_chat_server() as chat:
        model = chat.script({"text": "Hi", "failures": [[status, {}]] * 99})
        policy = ChatPolicy(model, base_url=chat.base_url, api_key="wrong")
        with pytest.raises(error, match=said):
            play(contract, range(12), policy, max_concurrent=2, output=output)
        # Those that were under way, and no more.
        assert len(chat.requests(model)) <= 2
    assert not contract.open_sessions()
    # The same file goes on once that is put right.
    assert Evaluation.load(output).outcomes == 0
    name = policy.policy_name
    again = play(contract, range(12), answer, output=output, policy_name=name)
    assert again.outcomes == 12


WRONG_KEY = ors_gym.AuthenticationError("the key is refused", status=401)
FORBIDDEN = ors_gym.AuthenticationError("not for you", status=403)
FAILING = ors_gym.ServerError("busy", status=503)
UNREACHABLE = ors_gym.ConnectionFailedError("no route")


def collect(errors: list[ors_gym.ORSError | None]) -> Collector:
    """Play tasks with these outcomes, two at once at most, while that has a point."""
    tasks = [Task("train", index) for index in range(len(errors))]
    bar = ProgressBar(len(tasks), "", shown=False)
    nothing: Any = {"output": None, "done": {}, "on_episode": None}
    nothing["loggers"] = Loggers([])
    collector = Collector(Plan(tasks, 1, "train"), 2, progress=bar, **nothing)
    while (planned := collector.next()) is not None:
        error = errors[planned.task.index]
        record = make_record(planned.task.index, split="train")
        if error is not None:
            kind = error.kind if error is UNREACHABLE else "policy"
            record.episode.fail(error, kind)
        asyncio.run(collector.keep(planned, record))
    return collector


@pytest.mark.parametrize(
    ("errors", "played", "stopped"),
    [
        # A key that is revoked on the way stops the run at once.
        ([None] * 5 + [WRONG_KEY] * 7, 6, "the key is refused"),
        # What is forbidden in one episode does not end the run; in every one it does.
        ([FORBIDDEN] + [None] * 11, 12, ""),
        ([None] + [FORBIDDEN] * 11, 5, "not for you"),
        ([FAILING] * 12, 12, ""),
        ([UNREACHABLE] * 12, 4, "the server could not be reached: no route"),
        ([UNREACHABLE, None] * 6, 12, ""),
    ],
    ids=str,
)
def test_a_run_stops_where_every_further_episode_would_fail(errors, played, stopped):
    collector = collect(errors)
    assert (len(collector.records), collector.stopped) == (played, stopped)
    # With outcomes there is something to show.
    collector.raise_if_refused()


@pytest.mark.parametrize("error", [WRONG_KEY, FORBIDDEN])
def test_without_any_outcome_the_refusal_is_raised(error):
    with pytest.raises(ors_gym.AuthenticationError, match=str(error)):
        collect([error] * 12).raise_if_refused()
