"""Which episodes an evaluation plays, and how its rows tell them apart."""

import itertools
import json

import numpy as np
import pytest

from ors_gym import ORSClient
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.evaluation import evaluate
from tests.evaluation.contract_evaluations import play, submit


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


@pytest.mark.parametrize("tasks", [3, 3.5, np.int64(3), "test", {"id": 1}, print])
def test_what_names_no_tasks_is_refused(contract, tasks):
    with pytest.raises(InvalidRequestError, match="tasks= takes indexes"):
        play(contract, tasks, submit)


@pytest.mark.parametrize("beyond", [range(10**12), itertools.count()])
def test_tasks_beyond_a_split_are_refused_as_they_are_read(contract, beyond):
    with pytest.raises(UnknownTaskError, match="there is no task 5 in split 'test'"):
        play(contract, beyond, submit, split="test")


def test_specs_need_no_split(contract):
    with ORSClient(contract.base_url) as client:
        tasks = client.list_tasks("NoTrain", "test")
        found = evaluate(client, "NoTrain", tasks[:2], submit, progress=False)
        assert found.success_rate == 0.5
        with pytest.raises(UnknownTaskError, match="pass split="):
            evaluate(client, "NoTrain", [0], submit, progress=False)


def test_a_task_itself_is_only_in_rows_without_an_index(contract, tmp_path):
    output = tmp_path / "run.jsonl"
    spec = {"id": "mine", "question": "q", "answer": "xyzzy"}
    play(contract, [5, spec], submit, output=output)
    rows = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    rows.sort(key=lambda row: "task" in row)
    assert "answer" not in json.dumps({**rows[0], "trajectory": None})
    assert '"10"' not in json.dumps(rows[0])
    assert rows[1]["task"] == spec
    assert "xyzzy" not in json.dumps(rows[1]["trajectory"])
    assert "task_index" not in rows[1]
