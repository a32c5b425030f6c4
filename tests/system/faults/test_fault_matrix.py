"""A tool runs exactly once: every fault, every way to play, both server SDKs.

All clients of a row are played at the same time, and some rows together, since most of
it is waiting.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.conftest import CURRENT
from tests.support.servers.process import RunningServer
from tests.system.faults.__main__ import PEERS
from tests.system.faults.agent_under_test import MCPAgent
from tests.system.faults.clients_under_test import CLIENTS, RESULT
from tests.system.faults.matrix import ROWS, Row
from tests.system.faults.trials import AT_ONCE, Clients, ServerOf, play_all, serving

FIRST = {row.fault: row for row in reversed(ROWS) if not row.slow}
"""One row of each fault, mostly the one where the fault comes once."""


def is_slow(place: int, row: Row, number: int) -> bool:
    """Say whether the usual run leaves a row out: it plays each fault on one SDK."""
    elsewhere = (place // 2 + number) % 2 and not row.fault.startswith("reset")
    return FIRST[row.fault] is not row or bool(elsewhere)


def cases() -> Iterator[Any]:
    for (number, name), slow in itertools.product(enumerate(CURRENT), (False, True)):
        rows = [r for i, r in enumerate(ROWS) if is_slow(i, r, number) is slow]
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            marks = [pytest.mark.slow] if slow else []
            also = f" and {len(some) - 1} more" if some[1:] else ""
            case = f"{some[0].name}{also}-{name}"
            yield pytest.param(some, name, id=case, marks=marks)


@pytest.fixture(scope="module")
def server_of(shared_server: Callable[[str], RunningServer]) -> Iterator[ServerOf]:
    with serving(CURRENT, shared_server) as give:
        yield give


@pytest.mark.parametrize(("rows", "name"), list(cases()))
def test_some_rows(server_of: ServerOf, rows: Sequence[Row], name: str) -> None:
    check(rows, name, server_of, CLIENTS)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "name"), list(cases()))
def test_some_rows_by_an_agent(
    server_of: ServerOf, rows: Sequence[Row], name: str
) -> None:
    check(rows, name, server_of, [MCPAgent])


def check(rows: Sequence[Row], name: str, server_of: ServerOf, kinds: Clients) -> None:
    wrong = {}
    for row, cells in play_all(rows, name, server_of, kinds).items():
        assert set(cells) == {client.name for client in kinds}
        for client, cell in cells.items():
            found = cell.mistakes(row)
            # Whatever the row says:
            if cell.runs > (2 if row.lies else 1):
                found.append("the tool ran too often")
            if cell.shown.outcome == RESULT and not cell.runs:
                found.append("a result of no run")
            if found:
                wrong[row.name, client] = found
    assert not wrong


def test_every_row_is_played_on_every_server() -> None:
    played = [
        (row, name)
        for case in cases()
        for row in case.values[0]
        for name in [case.values[1]]
    ]
    assert len(played) == len(set(played)) == len(ROWS) * len(CURRENT)
    usual = [row for case in cases() if not case.marks for row in case.values[0]]
    assert {row.fault for row in usual} == {row.fault for row in ROWS}


def test_the_rows_ask_for_nothing_else() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert set(PEERS) <= set(names)
    for row in ROWS:
        assert row.runs <= (2 if row.lies else 1)
        assert row.runs >= 1 or RESULT not in row.outcomes
    assert [row.name for row in ROWS if row.lies] == ["429 after the tool ran, once"]


def test_every_fault_has_a_row() -> None:
    """Once and for ever, where that makes a difference."""
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
