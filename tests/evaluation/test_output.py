"""The output file: resumed, refused, repaired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.cli import main
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation._output import FORMAT, Output, read_output
from ors_gym.evaluation._plan import Key
from tests.evaluation.contract_evaluations import make_record, play, submit

HEAD = {"format": FORMAT, "server": "a", "policy": "p", "limits": {"x": [1, None]}}


def keys(*records: Record) -> set[Key]:
    return {one.key for one in records}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def test_rows_are_there_once_they_are_appended(path):
    with Output(path, HEAD, set()) as output:
        assert output.records == {}
        output.append(make_record(1))
        # Another reader sees it at once.
        assert len(path.read_bytes().splitlines()) == 2
        output.append(make_record(2, reward=None))
    head, records = read_output(path)
    assert head == HEAD
    assert records == [make_record(1), make_record(2, reward=None)]


def test_the_rest_of_a_killed_write_is_dropped(path):
    with Output(path, HEAD, set()) as output:
        output.append(make_record(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"task_index": 2, "to')
    assert read_output(path)[1] == [make_record(1)]
    with Output(path, HEAD, keys(make_record(1))) as output:
        assert set(output.records) == keys(make_record(1))
        output.append(make_record(2))
    assert read_output(path)[1] == [make_record(1), make_record(2)]


@given(st.data())
def test_a_file_cut_anywhere_goes_on(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    plan = [make_record(index) for index in range(4)]
    with Output(path, HEAD, keys(*plan)) as output:
        for one in plan:
            output.append(one)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with Output(path, HEAD, keys(*plan)) as output:
        for one in plan:
            if one.key not in output.records:
                output.append(one)
    assert path.read_bytes() == whole


def test_outages_are_dropped_where_they_are_planned_again(path):
    with Output(path, HEAD, set()) as output:
        output.append(make_record(1, reward=None))
        output.append(make_record(2, reward=None))
        output.append(make_record(3))
    with Output(path, HEAD, keys(make_record(1), make_record(3))) as output:
        assert set(output.records) == keys(make_record(2), make_record(3))
        output.append(make_record(1))
    indexes = [one.episode.task_index for one in read_output(path)[1]]
    assert indexes == [2, 3, 1]


def test_of_two_rows_of_one_episode_the_last_counts(path):
    with Output(path, HEAD, set()) as output:
        output.append(make_record(1, reward=0.0))
        output.append(make_record(2))
        output.append(make_record(1, reward=1.0))
    assert read_output(path)[1] == [make_record(1, reward=1.0), make_record(2)]
    with Output(path, HEAD, set()) as output:
        assert output.records[make_record(1).key] == make_record(1, reward=1.0)
    assert len(path.read_bytes().splitlines()) == 3


def test_another_address_of_the_server_is_fine(path):
    Output(path, HEAD, set()).close()
    Output(path, HEAD | {"server": "b", "created": "later"}, set()).close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"policy": "q"}, 'policy was "p", is now "q"'),
        ({"limits": {"x": [1, 2]}}, "limits was"),
        ({"split": "test"}, 'split was null, is now "test"'),
    ],
)
def test_other_settings_are_refused_and_named(path, change, named):
    Output(path, HEAD, set()).close()
    before = path.read_bytes()
    with pytest.raises(InvalidRequestError, match=named):
        Output(path, HEAD | change, set())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"hello\n", b"{}\n", b'[1]\n{"a": 1}\n', b"\xff\xfe\n"]
)
def test_what_is_no_output_file_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError):
        Output(path, HEAD, set())
    with pytest.raises(InvalidRequestError):
        Evaluation.load(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("row", [b"{oops\n", b"3\n", b"{}\n", b'{"trajectory": {}}\n'])
def test_a_damaged_row_is_refused(path, row):
    Output(path, HEAD, set()).close()
    with path.open("ab") as file:
        file.write(row)
    with pytest.raises(InvalidRequestError, match="damaged"):
        Output(path, HEAD, set())


def test_an_empty_file_is_no_evaluation_yet(path):
    path.touch()
    with pytest.raises(InvalidRequestError, match="empty"):
        Evaluation.load(path)
    Output(path, HEAD, set()).close()
    assert len(Evaluation.load(path).results) == 0


def test_two_processes_cannot_write_one_file(path):
    with Output(path, HEAD, set()):
        code = (
            "import json, sys\n"
            "from ors_gym.evaluation._output import Output\n"
            "Output(sys.argv[1], json.loads(sys.argv[2]), set())\n"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, str(path), json.dumps(HEAD)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert second.returncode == 1
    assert "another evaluation is writing" in second.stderr
    Output(path, HEAD, set()).close()


def test_rows_are_synced_in_groups(path, monkeypatch):
    synced: list[int] = []
    sync = os.fsync

    def counted(file: int) -> None:
        synced.append(file)
        sync(file)

    due = []
    with Output(path, HEAD, set()) as output:
        monkeypatch.setattr("os.fsync", counted)
        for index in range(64):
            output.append(make_record(index))
        due.append(output.needs_sync)
        output.sync()
        due.append(output.needs_sync)
        output.append(make_record(64))
    assert due == [True, False]
    assert len(synced) == 2


def test_a_run_goes_on_with_more_episodes_per_task(path, contract):
    def run(**options: Any) -> Evaluation:
        return play(contract, range(3), submit, output=path, **options)

    assert len(run().results) == 3
    for _ in range(2):
        assert len(run(episodes_per_task=3).results) == 9
        assert len(contract.log("construct")) == 9
    with pytest.raises(InvalidRequestError, match="limits"):
        run(max_turns=5)
    with pytest.raises(InvalidRequestError, match="policy"):
        run(policy_name="other")


def test_a_file_without_episodes_is_said_to_hold_none(path, contract, capsys):
    play(contract, [0], submit, output=path)
    head = path.read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(head)["environment"]
    path.write_text(head + "\n", encoding="utf-8")
    assert not Evaluation.load(path).records
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} holds no episodes yet\n"
