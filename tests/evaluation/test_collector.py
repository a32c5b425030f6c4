"""What is told of episodes as they end, and when a run stops before its end."""

from __future__ import annotations

from typing import Any

import pytest

from ors_gym.errors import AuthenticationError, InvalidRequestError, ServerError
from ors_gym.evaluation import Evaluation
from ors_gym.rollout import ChatPolicy, Episode
from tests.evaluation.contract_evaluations import answer, play, submit
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
    assert not contract.open_sessions()


def test_a_progress_bar_shows_running_figures(contract, capsys):
    play(contract, range(4), progress=True)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "success=75.0%" in shown


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, AuthenticationError, "the key is refused"),
        (404, InvalidRequestError, "the request is refused"),
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
    again = play(
        contract, range(12), answer, output=output, policy_name=policy.policy_name
    )
    assert again.outcomes == 12


def test_a_key_that_is_revoked_on_the_way_stops_with_what_there_is(contract):
    asked: list[int] = []

    def policy(episode: Episode) -> Any:
        asked.append(episode.task_index)
        if len(asked) > 5:
            raise AuthenticationError("the key is refused: revoked", status=401)
        return answer(episode)

    found = play(contract, range(12), policy, max_concurrent=2)
    assert found.outcomes == 5
    assert found.stopped == "the key is refused: revoked"
    assert len(found.results) <= 7
    assert "revoked" in str(found)


def test_what_is_forbidden_in_one_episode_does_not_end_the_run(contract):
    def policy(episode: Episode) -> Any:
        if episode.task_index == 0:
            raise AuthenticationError("not with these words", status=403)
        return answer(episode)

    found = play(contract, range(12), policy, max_concurrent=2)
    assert (found.outcomes, found.stopped) == (11, "")


def test_what_is_forbidden_in_every_episode_does(contract):
    def policy(episode: Episode) -> Any:
        raise AuthenticationError("not for you", status=403)

    with pytest.raises(AuthenticationError, match="not for you"):
        play(contract, range(12), policy, max_concurrent=2)
    assert 4 <= len(contract.log("construct")) <= 6


def test_a_failing_model_server_is_rows(contract):
    def policy(episode: Episode) -> Any:
        raise ServerError("busy", status=503)

    found = play(contract, range(12), policy, max_concurrent=2)
    assert (len(found.results), found.stopped) == (12, "")
