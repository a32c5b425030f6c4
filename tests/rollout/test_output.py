"""The output file: resumed, refused, repaired."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from ors_gym.cli import main
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.rollout._output import FORMAT, Output, read_output
from ors_gym.rollout._planned_rollout import Key
from tests.evaluation.contract_evaluations import make_record
from tests.support.full_disk import files_up_to

pytestmark = pytest.mark.unit

HEAD = {"format": FORMAT, "server": "a", "policy": "p", "limits": {"x": [1, None]}}
ONE, TWO, THREE = (make_record(index) for index in (1, 2, 3))
SPEC = Record(make_record(-1).episode, True, {"id": "é\u2028", "n": [1e308]})
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


@pytest.fixture
def _unsynced(monkeypatch):
    """Sync nothing: a test of every byte opens thousands of files."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.mark.slow
@pytest.mark.usefixtures("_unsynced")
def test_a_file_cut_at_any_byte_loses_and_doubles_nothing(path):
    plan = [ONE, SPEC]
    write(path, *plan, planned=plan)
    whole = path.read_bytes()
    head, *rows = whole.splitlines(keepends=True)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n") - 1
        if complete >= 0:
            assert read_output(path)[1] == plan[:complete]
        kept = write(path, planned=plan)
        assert list(kept.values()) == plan[: max(0, complete)]
        assert path.read_bytes() == b"".join([head, *rows[: max(0, complete)]])
        write(path, *plan[len(kept) :], planned=plan)
        assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


def test_a_torn_head_of_the_length_of_a_whole_one_is_replaced(path):
    write(path)
    whole = path.read_bytes()
    # As of another server, whose address has one character more.
    path.write_bytes(whole.replace(b'"server":"a"', b'"server":"ab"')[:-1])
    assert len(path.read_bytes()) == len(whole)
    write(path, ONE)
    assert read_output(path) == (HEAD, [ONE])


@pytest.mark.usefixtures("_unsynced")
def test_a_disk_that_is_full_at_any_byte_leaves_whole_rows(path):
    write(path)
    begun = path.read_bytes()
    write(path, ONE, TWO)
    whole = path.read_bytes()
    size = len(begun)
    for limit in range(size, len(whole)):
        path.write_bytes(begun)
        with Output(path, HEAD, set()) as output:
            rest = [ONE, TWO]
            with files_up_to(limit), pytest.raises(OSError, match="too large"):
                while rest:
                    output.append(rest[0])
                    rest.pop(0)
            assert path.read_bytes() == whole[: whole.rindex(b"\n", 0, limit) + 1]
            # Once there is room, the same run goes on.
            for record in rest:
                output.append(record)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("limit", [0, 1, 60, 300, 600])
def test_a_full_disk_as_a_file_is_rewritten_leaves_it_as_it_was(path, limit):
    write(path, LOST_ONE, TWO, THREE)
    before = path.read_bytes()
    with (
        files_up_to(limit),
        pytest.raises(InvalidRequestError, match="cannot be written: File too large"),
    ):
        write(path, planned=[ONE])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert list(write(path, planned=[ONE]).values()) == [TWO, THREE]


def test_a_row_that_is_not_json_is_written_without_its_outcome(path):
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for metadata in ({"a": float("inf")}, {"a": {1, 2}}, deep, {"a": 10**5000}):
        record = make_record(7)
        record.episode.steps[0].metadata = metadata
        with Output(path, HEAD, ()) as output:
            [kept] = output.append(record)
            output.append(ONE)
        assert kept.key == record.key
        assert not kept.has_outcome
        assert kept.episode.error_kind == "output"
        assert "the row cannot be written as JSON" in kept.episode.error
        assert read_output(path)[1] == [kept, ONE]
        path.unlink()
    while deep:
        deep = deep.pop("a")  # type: ignore[assignment]


def test_settings_that_are_not_json_are_refused(path):
    with pytest.raises(InvalidRequestError, match="names the settings"):
        Output(path, HEAD | {"limits": {"deadline": float("inf")}}, ())


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
    "content",
    [
        *(b"hello\n", b"{}\n", b'[1]\n{"a": 1}\n', b"\xff\xfe\n", b"\n"),
        # Without a line's end, as editors and programs leave them.
        *(b"my notes", b'{"a": 1}', b"\0" * 9, b"{}", b" ", b'{"format": 1'),
        *(b'{"format":"ors_gym.evaluation/2","server"', b"#" * 1_000_000),
    ],
)
def test_what_is_no_output_file_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    for read in (write, Evaluation.load):
        with pytest.raises(InvalidRequestError):
            read(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "row",
    [
        *(b"{oops\n", b"3\n", b"{}\n", b'{"trajectory": {}}\n', b"\n", b"\xff\n"),
        *(b"[" * 100_000 + b"\n", b'{"task_index":1e999}\n', b"my own line", b"\n "),
    ],
)
def test_a_damaged_row_is_refused(path, row):
    write(path, ONE)
    path.write_bytes(before := path.read_bytes() + row)
    for read in (write, Evaluation.load):
        with pytest.raises(InvalidRequestError, match="damaged"):
            read(path)
    assert path.read_bytes() == before


def test_what_is_no_file_is_refused(path):
    for place in (path.parent, Path("/dev/null"), path.parent / "pipe"):
        if place.name == "pipe":
            os.mkfifo(place)
        kind = os.lstat(place).st_mode
        with pytest.raises(InvalidRequestError, match="is no file"):
            write(place)
        assert os.lstat(place).st_mode == kind
    with pytest.raises(InvalidRequestError, match="cannot be written: File exists"):
        write(Path("/dev/null/run.jsonl"))


def test_a_symbolic_link_and_the_mode_of_a_file_stay(path, tmp_path):
    link = tmp_path / "latest.jsonl"
    link.symlink_to(path)
    write(link, LOST_ONE, TWO)
    path.chmod(0o600)
    assert list(write(link, ONE, planned=[ONE])) == [TWO.key]
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_output(path)[1] == [TWO, ONE]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory"])
def test_what_lies_where_the_new_file_is_made_is_left_alone(path, kind):
    beside, foreign = path.with_name(".run.jsonl.new"), path.with_name("foreign")
    foreign.write_text("mine")
    if kind == "directory":
        beside.mkdir()
    elif kind == "file":
        beside.write_text("mine")
    else:
        beside.symlink_to(foreign if kind == "link" else path.with_name("nowhere"))
    with pytest.raises(InvalidRequestError, match=r"run\.jsonl\.new is in the way"):
        write(path, ONE)
    assert foreign.read_text() == "mine"
    assert os.path.lexists(beside)
    assert not path.with_name("nowhere").exists()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("left", [b"", b'{"format":"ors_gy', b"all"])
def test_what_a_killed_rewrite_left_is_replaced(path, left):
    write(path, LOST_ONE, TWO)
    beside = path.with_name(".run.jsonl.new")
    beside.write_bytes(path.read_bytes()[:-9] if left == b"all" else left)
    assert list(write(path, ONE, planned=[ONE])) == [TWO.key]
    assert read_output(path)[1] == [TWO, ONE]
    assert not beside.exists()


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


def test_a_file_says_how_many_episodes_it_is_to_hold(path):
    Output(path, HEAD | {"planned": 2}, {ONE.key, TWO.key}).close()
    with Output(path, HEAD | {"planned": 2}, {ONE.key, TWO.key}) as output:
        output.append(ONE)
    before = path.stat().st_ino
    # The same again, and then another task: the one that is there stays.
    Output(path, HEAD | {"planned": 2}, {ONE.key, TWO.key}).close()
    assert path.stat().st_ino == before
    Output(path, HEAD | {"planned": 1}, {THREE.key}).close()
    head, records = read_output(path)
    assert (head, records) == (HEAD | {"planned": 2}, [ONE])
    Output(path, HEAD | {"planned": 2}, {ONE.key, THREE.key}).close()
    Output(path, HEAD | {"planned": 3}, {ONE.key, TWO.key, THREE.key}).close()
    assert read_output(path)[0]["planned"] == 3
