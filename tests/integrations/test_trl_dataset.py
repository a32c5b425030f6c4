"""What TRL is given to train on: rows of tasks, and no answer among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ors_gym.errors import (
    InvalidRequestError,
    SetupFailedError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.integrations.trl import combine_environments, trl_environment
from tests.support.servers.process import RunningServer

GROUP = "training"


def test_a_row_for_each_task_and_no_answer_in_any(one_server: RunningServer) -> None:
    made = trl_environment("contract", one_server.base_url)
    rows = made.train_dataset.to_list()
    assert rows == [
        {
            "prompt": [{"role": "user", "content": ""}],
            "environment": "contract",
            "task_index": index,
        }
        for index in range(12)
    ]
    assert not one_server.log("get_task")
    for text in (json.dumps(rows), repr(made)):
        assert "answer" not in text
        assert "= ?" not in text


def test_specs_that_are_given_stay_out_of_the_rows(one_server: RunningServer) -> None:
    specs = [{"id": "x", "question": f"{n}?", "answer": "hunter22"} for n in range(3)]
    made = trl_environment("Contract", one_server.base_url, tasks=specs)
    assert "hunter22" not in json.dumps(made.train_dataset.to_list())
    assert "hunter22" not in repr(made)
    rollout = made.environment_factory()
    assert rollout.reset(**made.train_dataset[2]) == "2?"
    rollout.submit(answer="hunter22")
    assert rollout.get_reward() == 1.0
    with pytest.raises(UnknownTaskError):
        rollout.reset(task_index=3)


def test_columns_are_there_by_name_only(one_server: RunningServer) -> None:
    made = trl_environment(
        "Contract", one_server.base_url, tasks=[7, 2], columns=["question"]
    )
    rows = made.train_dataset.to_list()
    assert [row["question"] for row in rows] == ["7 + 7 = ?", "2 + 2 = ?"]
    assert [row["task_index"] for row in rows] == [7, 2]
    assert "answer" not in rows[0]
    rollout = made.environment_factory()
    assert rollout.reset(**rows[0]) == "7 + 7 = ?"


def test_a_field_that_some_tasks_lack_is_none(one_server: RunningServer) -> None:
    specs: list[dict[str, Any]] = [{"id": "a", "level": 1}, {"id": "b"}]
    made = trl_environment(
        "Contract", one_server.base_url, tasks=specs, columns=["level"]
    )
    assert made.train_dataset["level"][:] == [1, None]


def test_a_system_prompt(one_server: RunningServer) -> None:
    made = trl_environment(
        "Contract", one_server.base_url, tasks=[0], system_prompt="Be brief."
    )
    assert made.train_dataset[0]["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ""},
    ]


def test_another_split(one_server: RunningServer) -> None:
    made = trl_environment("Contract", one_server.base_url, split="test")
    assert len(made.train_dataset) == 5
    rollout = made.environment_factory()
    one_server.mark()
    rollout.reset(**made.train_dataset[4])
    (entry,) = one_server.log("ready")
    assert entry["task"] == "test-4"


def test_the_environment_that_was_asked_for(one_server: RunningServer) -> None:
    with pytest.raises(UnknownEnvironmentError, match="tasktools"):
        trl_environment("Nowhere", one_server.base_url)


def test_a_range_of_a_vast_split(one_server: RunningServer) -> None:
    made = trl_environment(
        "Vast", one_server.base_url, tasks=range(10**8, 10**8 + 3), columns=["question"]
    )
    assert made.train_dataset["question"][0] == f"{10**8}?"
    assert not one_server.log("list_tasks")
    with pytest.raises(UnknownTaskError, match="tasks=range"):
        trl_environment("Vast", one_server.base_url)


def test_every_task_is_probed_but_not_more_than_were_asked_for(
    one_server: RunningServer,
) -> None:
    trl_environment("Contract", one_server.base_url)
    assert len({entry["task"] for entry in one_server.log("ready")}) == 12
    one_server.mark()
    trl_environment("Contract", one_server.base_url, tool_probes=3)
    probed = {entry["task"] for entry in one_server.log("ready")}
    assert probed == {"train-0", "train-4", "train-8"}
    one_server.wait_for("teardown", 3)


def test_a_task_that_cannot_be_set_up_is_no_obstacle(
    one_server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    good, broken = {"id": "good"}, {"id": "broken", "setup_error": "no disk"}
    made = trl_environment("Contract", one_server.base_url, tasks=[broken, good])
    assert len(made.train_dataset) == 2
    assert "no disk" in caplog.text
    with pytest.raises(SetupFailedError, match="no disk"):
        trl_environment("Contract", one_server.base_url, tasks=[broken])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["answr"]}, "the tasks have: answer, id, question"),
        ({"columns": ["prompt"]}, "'prompt'"),
        ({"columns": "question"}, "list of names"),
        ({"tasks": [99]}, "99"),
        ({"tasks": []}, "empty"),
        ({"tasks": [0, {"id": "x"}]}, "all indexes or all task specs"),
        ({"tasks": lambda *_: 0}, "cannot be a function"),
        ({"split": "trian"}, "trian"),
        ({"reward_reduction": "median"}, "median"),
        ({"nonterminal_reward": float("nan")}, "finite"),
        ({"num_generations": 0}, "at least 1"),
        ({"tool_probes": 0}, "at least 1"),
        ({"prefetch": True}, "prefetch="),
        ({"call_timeout": 0}, "call_timeout"),
    ],
)
def test_mistakes_are_told_before_training(
    one_server: RunningServer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        trl_environment("Contract", one_server.base_url, **arguments)


def test_a_column_of_several_types_is_refused(one_server: RunningServer) -> None:
    specs: list[dict[str, Any]] = [{"id": "a", "x": 1}, {"id": "b", "x": ["one"]}]
    with pytest.raises(InvalidRequestError, match="each column has one type"):
        trl_environment("Contract", one_server.base_url, tasks=specs, columns=["x"])


def test_several_environments_in_one_dataset(one_server: RunningServer) -> None:
    url = one_server.base_url
    first = trl_environment("Contract", url, tasks=[1], columns=["question"])
    second = trl_environment("TaskTools", url, tasks=[1])
    third = trl_environment("Contract", url, split="test", tasks=[0], name="tests")
    made = combine_environments(combine_environments(first, second), third)
    rows = made.train_dataset.to_list()
    assert [row["environment"] for row in rows] == ["Contract", "TaskTools", "tests"]
    assert [row["question"] for row in rows] == ["1 + 1 = ?", None, None]
    assert list(made.environment_factory) == ["Contract", "TaskTools", "tests"]
    rollouts = []
    for row in rows:
        rollout = made.environment_factory[row.pop("environment")]()
        rollout.reset(**row)
        rollouts.append(rollout)
    rollouts[2].submit(answer="0")
    assert [reward(environments=rollouts) for reward in made.reward_funcs] == [
        [0.0, None, None],
        [None, 0.0, None],
        [None, None, 1.0],
    ]
    with pytest.raises(InvalidRequestError, match="two environments are named"):
        combine_environments(first, first)
