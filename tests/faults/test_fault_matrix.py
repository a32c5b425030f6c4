"""A tool runs exactly once: every fault, every way to play, both server SDKs.

All columns of a row are played at the same time, since most of it is waiting.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import CURRENT
from tests.faults.columns import RESULT
from tests.faults.every_column import COLUMNS
from tests.faults.playing import ServerOf, play, serving
from tests.faults.rows import ROWS, Row
from tests.faults.table import PEERS, faults_found
from tests.servers.process import RunningServer


def cases() -> Iterator[Any]:
    """Each row on each SDK; the usual run plays most rows on one of the two."""
    for place, (row, number) in enumerate(itertools.product(ROWS, range(2))):
        other = (place // 4 + number) % 2 and not row.fault.startswith("reset")
        marks = [pytest.mark.slow] if row.slow or other else []
        name = CURRENT[number]
        yield pytest.param(row, name, id=f"{row.name}-{name}", marks=marks)


@pytest.fixture(scope="module")
def server_of(
    shared_server: Callable[[str], RunningServer],
) -> Iterator[ServerOf]:
    """Give the server for a row."""
    with serving(CURRENT, shared_server) as give:
        yield give


@pytest.mark.parametrize(("row", "name"), list(cases()))
def test_a_row(server_of: ServerOf, row: Row, name: str) -> None:
    cells = play(row, server_of(name, row))
    assert set(cells) == {column.name for column in COLUMNS}
    found = {column: faults_found(row, cell) for column, cell in cells.items()}
    assert not any(found.values()), found
    for cell in cells.values():
        # Whatever the row says:
        assert cell.runs <= (2 if row.lies else 1)
        assert cell.runs >= 1 or cell.shown.outcome != RESULT


def test_the_rows_ask_for_nothing_else() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert set(PEERS) <= set(names)
    for row in ROWS:
        assert row.runs <= (2 if row.lies else 1)
        assert row.runs >= 1 or RESULT not in row.outcomes
    assert [row.name for row in ROWS if row.lies] == ["429 after the tool ran, once"]


def test_every_fault_has_a_row() -> None:
    """Issue 3 names them; each once and for ever, where that makes a difference."""
    faults = {row.fault for row in ROWS}
    wanted = {
        f"{kind} {place}"
        for kind in ("reset", "end of stream")
        for place in (
            *("before the request", "before the reply", "after the head"),
            *("after task_id", "in a chunk", "before the end"),
        )
    }
    wanted |= {
        f"{status} {when} the tool ran"
        for status in (401, 404, 410, 500, 502, 503, 504)
        for when in ("before", "after")
    }
    both = set(wanted)
    wanted |= {
        "429 before the tool ran",
        "429 after the tool ran",
        "429 after the tool ran, with repeat_calls_after_429=False",
        "starting, three times",
        "stall before the headers",
        "stall after task_id",
        "half-open after task_id",
        "one byte per packet",
        "/create unanswered",
        "server killed before the call",
        "server restarted before the call",
        "server killed during the call",
        "server restarted during the call",
        "unknown task_id to the resumption",
    }
    assert wanted <= faults
    for fault in both:
        times = {row.times for row in ROWS if row.fault == fault}
        assert times == {"once", "for ever"}
