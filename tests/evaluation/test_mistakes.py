"""What a newcomer's first mistakes lead to: an end, and words that say what to do."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from ors_gym.cli import main
from ors_gym.errors import InvalidRequestError, MissingExtraError
from ors_gym.evaluation import Evaluation, evaluate
from ors_gym.evaluation._report import as_page
from ors_gym.rollout import random_policy, reference_policy


def play(policy: Any, **options: Any) -> Evaluation:
    given: Any = {"progress": False, "max_turns": 30} | options
    return evaluate(None, "guess", range(2), policy, **given)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (lambda episode: 8, "the policy returned a number, not an action. Return"),
        (random_policy, "the policy returned a function, not an action (was it called"),
        (lambda episode: {1}, "the policy returned a set, not an action. Return"),
    ],
)
def test_an_answer_that_is_no_action_fails_its_episode_at_once(policy, words):
    found = play(policy)
    assert found.errors == {"policy": 2}
    assert all(words in row["error"] for row in found["results"])
    assert all(row["steps"] == 0 for row in found["results"])


def test_a_model_that_sends_nothing_readable_comes_to_an_end():
    found = play(lambda episode: [8, {"tool": 3}], max_turns=None)
    assert found.stop_reasons == {"policy_stopped": 2}
    assert [len(episode.turns) for episode in found.episodes] == [11, 11]


def test_the_first_error_of_a_policy_is_shown_with_its_place():
    found = play(lambda episode: 1 / 0)
    text = str(found)
    line = play.__code__.co_filename
    assert text.startswith("FAILED          the policy raised ZeroDivisionError in")
    assert "policy 2; not in the figures. First, task 0: ZeroDivisionError: " in text
    assert f"division by zero ({line}:" in text
    assert "ZeroDivisionError" in as_page("All failed", {"run": found})


def test_one_failure_among_others_is_no_failure_of_all():
    player = reference_policy()

    def policy(episode):
        return player(episode) if episode.task_index else 1 / 0

    text = str(play(policy))
    assert "FAILED" not in text
    assert "First, task 0: ZeroDivisionError" in text


def test_without_the_extra_there_are_figures_and_a_hint(monkeypatch):
    for name in ("scipy", "scipy.stats", "tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    found = evaluate(None, "guess", range(2), reference_policy(), max_turns=9)
    text = str(found)
    assert "success rate" in text
    assert text.count('pip install "ors-gym[eval]"') == 1
    assert "reward" in as_page("Bare", {"run": found})
    assert "success_low" not in found.metrics()
    with pytest.raises(MissingExtraError, match="tqdm"):
        play(reference_policy(), progress=True)


def test_a_forgotten_client_is_named():
    words = r"the order is evaluate\(client, env_name, tasks, policy\)"
    with pytest.raises(InvalidRequestError, match=words):
        evaluate("guess", range(2), random_policy(0))  # type: ignore[arg-type]


def test_a_file_without_episodes_is_said_to_hold_none(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    play(random_policy(0), output=path, max_turns=2)
    head = path.read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(head)["environment"]
    path.write_text(head + "\n", encoding="utf-8")
    assert not Evaluation.load(path).records
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} holds no episodes yet\n"
