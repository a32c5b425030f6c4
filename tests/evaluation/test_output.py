"""The output file: resumed, refused, repaired."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.cli import main
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation._output import FORMAT, Output, read_output
from ors_gym.evaluation._plan import Key
from tests.evaluation.contract_evaluations import make_record

pytestmark = pytest.mark.unit

HEAD = {"format": FORMAT, "server": "a", "policy": "p", "limits": {"x": [1, None]}}
ONE, TWO, THREE = (make_record(index) for index in (1, 2, 3))
LOST_ONE, LOST_TWO = (make_record(index, None) for index in (1, 2))


def write(
    path: Path, *records: Record, planned: Iterable[Record] = ()
) -> Mapping[Key, Record]:
    """Append records to a file; return those that it held, and that are kept."""
    with Output(path, HEAD, {one.key for one in planned}) as output:
        for one in records:
            output.append(one)
    return output.records


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def test_rows_are_there_once_they_are_appended(path):
    with Output(path, HEAD, set()) as output:
        assert output.records == {}
        output.append(ONE)
        # Another reader sees it at once.
        assert len(path.read_bytes().splitlines()) == 2
        output.append(LOST_TWO)
    assert read_output(path) == (HEAD, [ONE, LOST_TWO])


def test_the_rest_of_a_killed_write_is_dropped(path):
    write(path, ONE)
    path.write_bytes(path.read_bytes() + b'{"task_index": 2, "to')
    assert read_output(path)[1] == [ONE]
    assert write(path, TWO, planned=[ONE]) == {ONE.key: ONE}
    assert read_output(path)[1] == [ONE, TWO]


@given(st.data())
def test_a_file_cut_anywhere_goes_on(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    plan = [make_record(index) for index in range(4)]
    write(path, *plan, planned=plan)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    kept = write(path, planned=plan)
    write(path, *(one for one in plan if one.key not in kept), planned=plan)
    assert path.read_bytes() == whole


def test_outages_are_dropped_where_they_are_planned_again(path):
    write(path, LOST_ONE, LOST_TWO, THREE)
    kept = write(path, ONE, planned=[ONE, THREE])
    assert kept == {TWO.key: LOST_TWO, THREE.key: THREE}
    assert read_output(path)[1] == [LOST_TWO, THREE, ONE]


def test_of_two_rows_of_one_episode_the_last_counts(path):
    write(path, make_record(1, 0.0), TWO, ONE)
    assert read_output(path)[1] == [ONE, TWO]
    assert write(path)[ONE.key] == ONE
    assert len(path.read_bytes().splitlines()) == 3


def test_another_address_of_the_server_is_fine(path):
    write(path)
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
    write(path)
    before = path.read_bytes()
    with pytest.raises(InvalidRequestError, match=named):
        Output(path, HEAD | change, set())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"hello\n", b"{}\n", b'[1]\n{"a": 1}\n', b"\xff\xfe\n"]
)
def test_what_is_no_output_file_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    for read in (write, Evaluation.load):
        with pytest.raises(InvalidRequestError):
            read(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("row", [b"{oops\n", b"3\n", b"{}\n", b'{"trajectory": {}}\n'])
def test_a_damaged_row_is_refused(path, row):
    write(path)
    path.write_bytes(path.read_bytes() + row)
    with pytest.raises(InvalidRequestError, match="damaged"):
        write(path)


def test_a_file_without_episodes_is_said_to_hold_none(path, capsys):
    path.touch()
    with pytest.raises(InvalidRequestError, match="empty"):
        Evaluation.load(path)
    write(path)
    assert len(Evaluation.load(path).results) == 0
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} holds no episodes yet\n"


def test_two_cannot_write_one_file(path):
    # The lock belongs to the open file, so it is the same with two processes.
    with Output(path, HEAD, set()), pytest.raises(InvalidRequestError, match="another"):
        write(path)
    write(path)


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
