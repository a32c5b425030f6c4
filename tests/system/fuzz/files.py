"""Continue output files that were cut, damaged or somebody else's, on disks that fill.

Each input is the file of a short run, mutated, or anything. An oracle that reads it in
its own way says what may happen: it is refused and left byte for byte as it was, or it
goes on with every whole row that has an outcome, once. In both cases nothing else
appears in its directory.
"""

import contextlib
import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation._live_page import MALFORMED, WatchedRun
from ors_gym.evaluation._page import show_figures
from ors_gym.rollout._output import FORMAT, Output, read_output
from ors_gym.rollout._planned_rollout import Key
from tests.evaluation.contract_evaluations import make_record
from tests.support.full_disk import files_up_to
from tests.system.fuzz.replies import misshape
from tests.system.fuzz.tally import FuzzError, Tally

_HEAD: Final = {"format": FORMAT, "server": "a", "policy": "p", "limits": {"x": 1}}
_TOKENS: Final = [
    *(b"\n", b"\n\n", b"\r\n", b"\0", b"\xff", b"{", b"}", b'{"task', b"1e999", b"NaN"),
    *(b'{"format":"ors_gym.evaluation/1"', b"[" * 2000, b"notes", b" ", b'"'),
]
_PLANNED: Final = range(4)


def play(random: Random, tally: Tally) -> None:
    """Continue one file."""
    with (
        tempfile.TemporaryDirectory(dir=_fast_directory()) as directory,
        # Syncing thousands of files would take all the time.
        patch("os.fsync"),
    ):
        path = Path(directory) / "run.jsonl"
        begun = mutate(random)
        path.write_bytes(begun)
        try:
            _watch(path, random)
            tally.outcomes[f"file: {_continue(path, begun, random)}"] += 1
        except FuzzError:
            raise
        except Exception as error:
            problem = f"file: {type(error).__name__}: {error}\n{begun!r}"
            raise FuzzError(problem) from error


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def mutate(random: Random) -> bytes:
    lines = [json.dumps(_HEAD, separators=(",", ":")).encode() + b"\n"]
    for _ in range(random.randrange(5)):
        value: Any = _draw_record(random).row()
        if random.random() < 0.2:
            name = random.choice(("trajectory", "success", "task"))
            value[name] = misshape(value.get(name), random)
        separators = (",", ":") if random.random() < 0.9 else (", ", ": ")
        lines.append(json.dumps(value, separators=separators).encode() + b"\n")
    if random.random() < 0.1:
        random.shuffle(lines)
    if random.random() < 0.05:
        head = misshape(_HEAD, random)
        lines[0] = json.dumps(head, separators=(",", ":")).encode() + b"\n"
    data = bytearray(b"".join(lines))
    _damage(data, random)
    if random.random() < 0.05:
        return random.randbytes(random.randrange(60))
    return bytes(data)


def _damage(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(4)
        if kind == 0:
            data[place:place] = random.choice(_TOKENS)
        elif kind == 1:
            del data[place : place + random.randrange(40)]
        elif kind == 2:
            data[place : place + 1] = random.randbytes(1)
        else:
            token = random.choice(_TOKENS)
            data[place : place + len(token)] = token
    if random.random() < 0.5:
        del data[random.randrange(len(data) + 1) :]


def _draw_record(random: Random) -> Record:
    return make_record(random.randrange(6), random.choice((0.0, 1.0, 1.0, None)))


def _continue(path: Path, begun: bytes, random: Random) -> str:
    planned = {make_record(index).key for index in _PLANNED}
    expected = _rows_of(begun)
    try:
        with Output(path, _HEAD, planned) as output:
            told = _append_missing(output, planned, random)
    except InvalidRequestError:
        _expect(path.read_bytes() == begun, "a file that was refused changed", begun)
        torn = b"\n" not in begun and expected is not None
        _expect(not torn, "an empty or torn file was refused", begun)
        _expect_alone(path, begun)
        return "refused"
    _expect(expected is not None, "a file of something else was taken", begun)
    # Read in the order of their keys, since a row that is repeated moves to the end.
    kept = {
        key: record
        for key, record in (expected or {}).items()
        if record.has_outcome or key not in planned
    }
    found = {record.key: record for record in read_output(path)[1]}
    for key, record in kept.items():
        _expect(found.get(key) == record, f"{key} was lost", begun)
    _expect(planned <= found.keys(), "a row that was written was lost", begun)
    _expect(found.keys() == kept.keys() | planned, "a row was invented", begun)
    lines = path.read_bytes().splitlines(keepends=True)
    _expect(len(lines) == 1 + len(found), "a row is there twice", begun)
    _expect(all(line.endswith(b"\n") for line in lines), "a row is torn", begun)
    _expect_alone(path, begun)
    return told


def _watch(path: Path, random: Random) -> None:
    """Follow the file as a live page does, while it is written in two parts."""
    whole = path.read_bytes()
    run = WatchedRun(str(path))
    path.write_bytes(whole[: random.randrange(len(whole) + 1)])
    run.read(9.0)
    path.write_bytes(whole)
    run.read(9.0)
    rows = range(len(run.rows))
    # Draw no plots, which would take all the time.
    for row in rows:
        with contextlib.suppress(*MALFORMED):
            run.transcript(row, run.generation)
    _expect(set(run.search([])) <= set(rows), "a row was invented", whole)
    show_figures(Evaluation(run.records, head=run.head))
    with contextlib.suppress(InvalidRequestError):
        found = [record.key for record in read_output(path)[1]]
        keys = [record.key for record in run.records]
        # A row may be an episode, and yet nothing that can be shown.
        _expect(keys == found or bool(run.problem), "rows are missing", whole)


def _append_missing(output: Output, planned: set[Key], random: Random) -> str:
    """Write what is missing, on a disk that may be full for a while."""
    missing = [make_record(index) for index in _PLANNED]
    missing = [record for record in missing if record.key not in output.records]
    full = random.random() < 0.3 and missing
    if full:
        room = output.path.stat().st_size + random.randrange(900)
        with files_up_to(room), contextlib.suppress(OSError):
            while missing:
                output.append(missing[0])
                missing.pop(0)
        content = output.path.read_bytes()
        _expect(content.endswith(b"\n"), "a full disk left a torn row", content)
    for record in missing:
        output.append(record)
    return "went on after a full disk" if full else "went on"


def _rows_of(content: bytes) -> dict[Key, Record] | None:
    """Read whole rows in the plainest way; None for what may only be refused."""
    first, *rows = content.split(b"\n")
    start = b'{"format":"ors_gym.evaluation/1"'
    if not rows:
        return {} if start.startswith(first) or first.startswith(start) else None
    try:
        values = [json.loads(line) for line in (first, *rows[:-1])]
        if not all(isinstance(value, dict) for value in values):
            return None
        if values[0]["format"] != FORMAT:
            return None
        # Of two rows of one episode the last counts.
        records = map(Record.from_row, values[1:])
        return {record.key: record for record in records}
    except (ValueError, RecursionError, TypeError, LookupError, InvalidRequestError):
        return None


def _expect(right: bool, problem: str, content: bytes) -> None:
    if not right:
        raise FuzzError(f"file: {problem}\n{content!r}")


def _expect_alone(path: Path, content: bytes) -> None:
    names = [one.name for one in path.parent.iterdir()]
    _expect(names == [path.name], f"{names} are there", content)
