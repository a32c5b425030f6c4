"""Runs that are given another reward: of real servers, and written by hand."""

import asyncio
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ors_gym.cli import main
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, evaluate, rescore
from ors_gym.evaluation._statistics import ANYTHING
from ors_gym.formats._json_lines import encode_line
from ors_gym.rollout import Attempt, Episode, reduce_rewards, reference_policy
from ors_gym.rollout._output import Output, read_used_before
from ors_gym.rollout._usage import add_up
from tests.evaluation.contract_evaluations import answer, play
from tests.evaluation.runs import HEAD, make_run, with_task, write_run


def by_steps(episode: Episode) -> float:
    return len(episode.steps) / 4


@pytest.fixture
def run(tmp_path: Path) -> Path:
    records = [make_run(index, 1.0, steps=index) for index in range(4)]
    records += [make_run(4, None), with_task(make_run(9, 0.0))]
    return write_run(tmp_path / "run.jsonl", records)


def test_a_run_of_a_real_server_is_scored_without_playing(server, tmp_path):
    def both(episode: Episode) -> Any:
        if not episode.steps:
            return {"tool": "add", "input": {"a": 1, "b": 2}}
        return answer(episode)

    run = tmp_path / "run.jsonl"
    before = play(server, policy=both, output=run)
    assert before.rewards == [1.5, 1.5, 0.5, 1.5]
    before = Evaluation.load(run)  # in the order of the file
    kept, sessions = run.read_bytes(), server.runs("add")

    def last(episode: Episode) -> float:
        return reduce_rewards(episode.rewards, "last", finished=episode.finished)

    found = rescore(run, last, tmp_path / "new.jsonl", progress=False)
    assert found.rewards == [reward - 0.5 for reward in before.rewards]
    assert found.success_rate == 0.75
    assert (run.read_bytes(), server.runs("add")) == (kept, sessions)
    again = Evaluation.load(tmp_path / "new.jsonl")
    assert sorted(again.rewards) == sorted(found.rewards)
    for old, new in zip(before.episodes, found.episodes, strict=True):
        assert new.messages() == old.messages()
        assert new.rewards == old.rewards
    assert again.head["limits"]["success"] == "finished and total_reward > 0"
    assert "test_a_run" in again.head["scorer"]
    # It is another evaluation, which the old one cannot go on in, nor the other way.
    new = (tmp_path / "new.jsonl").read_bytes()
    with pytest.raises(InvalidRequestError, match="scorer was"):
        play(server, policy=both, output=tmp_path / "new.jsonl")
    with pytest.raises(InvalidRequestError, match="scorer was"):
        rescore(run, last, run, progress=False)
    assert (run.read_bytes(), (tmp_path / "new.jsonl").read_bytes()) == (kept, new)


def test_what_has_no_outcome_gets_none(run):
    seen: list[int] = []

    def score(episode: Episode) -> float:
        seen.append(episode.task_index)
        return by_steps(episode)

    found = rescore(run, score, progress=False)
    assert found.rewards == [0.0, 0.25, 0.5, 0.75, 0.5]
    assert [record.success for record in found.records] == [
        *(False, True, True, True),
        *(None, True),
    ]
    assert sorted(seen) == [-1, 0, 1, 2, 3]
    assert found.records[4] == Evaluation.load(run).records[4]
    assert found.records[5].task == Evaluation.load(run).records[5].task


def test_what_has_no_outcome_is_counted_once_however_often_it_is_rescored(tmp_path):
    lost = make_run(1, None)
    attempt = Attempt("connection", "gone", 7.0, 1.0, 0, {"prompt_tokens": 100})
    lost.episode.attempts = [attempt]
    run = write_run(tmp_path / "run.jsonl", [make_run(0), lost])
    used = add_up(record.used for record in Evaluation.load(run).records)
    output = tmp_path / "new.jsonl"
    rescore(run, by_steps, output, progress=False)
    written = output.read_bytes()
    for _ in range(2):
        rescore(run, by_steps, output, progress=False)
        assert output.read_bytes() == written
    again = Evaluation.load(output)
    assert add_up(record.used for record in again.records) == used
    assert read_used_before(again.head) == {}


def test_an_outcome_that_a_run_has_by_now_is_scored(tmp_path):
    run = write_run(tmp_path / "run.jsonl", [make_run(0), make_run(1, None)])
    output = tmp_path / "new.jsonl"
    assert rescore(run, by_steps, output, progress=False).outcomes == 1
    with run.open("ab") as file:
        file.write(encode_line(make_run(1, steps=1).row(), "the row"))
    assert rescore(run, by_steps, output, progress=False).rewards == [0.5, 0.25]
    assert sorted(Evaluation.load(output).rewards) == [0.25, 0.5]


def test_the_new_evaluation_lacks_what_the_run_lacks(tmp_path):
    records = [make_run(index) for index in range(3)]
    before = Evaluation(records, planned=9, stopped="interrupted", confidence=0.5)
    found = rescore(before, by_steps, progress=False)
    assert (found.planned, found.stopped) == (9, "interrupted")
    assert found.confidence == 0.5
    run = tmp_path / "run.jsonl"
    with Output(run, {**HEAD, "planned": 9}, ()) as written:
        written.append(*records)
    for _ in range(2):
        output = tmp_path / "new.jsonl"
        assert rescore(run, by_steps, output, progress=False).planned == 9
        assert Evaluation.load(output).planned == 9


def test_success_is_judged_by_the_new_reward(run, tmp_path):
    found = rescore(run, by_steps, success=0.5, progress=False)
    assert found.success_rate == 3 / 5
    assert found.head["limits"]["success"] == "total_reward >= 0.5"
    output = tmp_path / "new.jsonl"
    rescore(run, by_steps, output, success=lambda e: len(e.steps) == 1, progress=False)
    with pytest.raises(InvalidRequestError, match=r"lambda>'; pass success="):
        rescore(output, by_steps, progress=False)
    rescore(output, by_steps, success=1.0, progress=False)


def test_an_evaluation_in_memory_keeps_its_rewards(run):
    before = Evaluation.load(run)
    after = rescore(before, lambda episode: np.float32(0.5), progress=False)
    assert after.rewards == [0.5] * 5
    assert before.rewards == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert after.head["scorer"].endswith("<lambda>")


def test_async_scorers_run_at_once_and_plain_ones_in_threads(run):
    together, meets = asyncio.Barrier(5), threading.Barrier(5, timeout=30)

    async def score(episode: Episode) -> float:
        async with asyncio.timeout(30):
            await together.wait()
        return 1.0

    def plain(episode: Episode) -> float:
        meets.wait()
        return 1.0

    assert rescore(run, score, progress=False).rewards == [1.0] * 5
    assert rescore(run, plain, progress=False).rewards == [1.0] * 5


def test_after_a_scorer_that_raised_only_the_rest_is_scored(run, tmp_path):
    output = tmp_path / "new.jsonl"
    scored: list[int] = []

    def score(episode: Episode) -> float:
        if len(scored) == 2 and not output.with_suffix(".go").exists():
            raise OSError("the judge is gone")
        scored.append(episode.task_index)
        return by_steps(episode)

    with pytest.raises(OSError, match="the judge is gone"):
        rescore(run, score, output, max_concurrent=1, progress=False)
    assert len(Evaluation.load(output).rewards) == 2
    output.with_suffix(".go").touch()
    found = rescore(run, score, output, progress=False)
    assert sorted(scored) == [-1, 0, 1, 2, 3]
    assert found.rewards == rescore(run, by_steps, progress=False).rewards
    assert len(Evaluation.load(output).records) == 6


@pytest.mark.parametrize(
    "value", [None, "1", float("nan"), float("inf"), [1.0], 10**400]
)
def test_a_reward_is_a_finite_number(run, value):
    with pytest.raises(InvalidRequestError, match=r"for episode 0 of task \d of split"):
        rescore(run, lambda episode: value, max_concurrent=1, progress=False)


def test_arguments_that_cannot_be_right(run):
    with pytest.raises(InvalidRequestError, match="max_concurrent"):
        rescore(run, by_steps, max_concurrent=0)
    with pytest.raises(InvalidRequestError, match="reward_range"):
        rescore(run, by_steps, reward_range=(1.0, 0.0))


def test_the_known_range_of_a_reward_is_no_longer_known(tmp_path):
    before = evaluate(None, "math", range(3), reference_policy(), progress=False)
    assert before.reward_range == (0.0, 1.0)
    assert rescore(before, lambda _: 7.0, progress=False).reward_range is None
    ranged = rescore(before, lambda _: 7.0, reward_range=(0.0, 9.0), progress=False)
    assert ranged.reward_range == (0.0, 9.0)
    assert rescore(ranged, lambda _: 8.0, progress=False).reward_range is None


@pytest.mark.parametrize("bounds", [(0, math.inf), (-math.inf, 9), ANYTHING])
def test_a_range_without_an_end_can_be_written(run, tmp_path, bounds):
    output = tmp_path / "new.jsonl"
    for path in (None, output, output):
        found = rescore(run, by_steps, path, reward_range=bounds, progress=False)
        assert found.reward_range == bounds
    assert Evaluation.load(output).reward_range == bounds


def test_the_command_writes_a_new_run(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "judges_of_runs.py").write_text(
        "def score(episode):\n    return len(episode.steps) / 4\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    scorer = ["--scorer", "judges_of_runs:score", "--success-reward", "0.5"]
    command = ["rescore", str(run), *scorer, "--output", "new.jsonl"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["success_rate"] == 0.6
    assert Evaluation.load("new.jsonl").success_rate == 0.6
    assert main(["rescore", str(run), *scorer]) == 0
    assert "success" in capsys.readouterr().out
    assert main(["rescore", str(run), "--scorer", "judges_of_runs:none"]) == 1
    assert "scorer 'judges_of_runs:none' cannot be loaded" in capsys.readouterr().err
