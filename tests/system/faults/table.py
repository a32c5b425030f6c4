"""The matrix as a table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.system.faults.playing import Cell
from tests.system.faults.rows import Row

__all__ = ["PEERS", "as_markdown", "faults_found"]

Played = Mapping[str, Mapping[str, Cell]]
"""What came of a row, by SDK and column."""

PEERS: Final[Mapping[str, str]] = {
    "reset before the reply, once": "2 runs, silently",
    "reset after the head, for ever": "99 runs in 60 s, endless",
    "502 after the tool ran, once": "2 runs",
    "504 after the tool ran, once": "2 runs",
    "reset after task_id, for ever": "1 run, endless resumes",
    "/create unanswered, once": "error, session left behind",
    "invalid UTF-8 in a chunk, once": "silently dropped",
}
"""What the two SDKs' own clients do, as measured."""


def _words(cells: Iterable[Cell]) -> str:
    """Say what came of a row, once where the columns agree."""
    cells = list(cells)
    runs = sorted({cell.runs for cell in cells})
    outcomes = sorted({cell.shown.outcome for cell in cells})
    counted = " or ".join(f"{n} run" if n == 1 else f"{n} runs" for n in runs)
    return f"{counted}, {' or '.join(outcomes)}"


def as_markdown(played: Mapping[Row, Played]) -> str:
    """Return the table: a line for each fault, the columns merged where they agree.

    Args:
        played: What came of the rows, in their order.
    """
    lines = [
        "| fault | once | for ever | the SDKs' own clients |",
        "|---|---|---|---|",
    ]
    by_fault: dict[str, dict[str, tuple[Row, Played]]] = {}
    for row, sdks in played.items():
        by_fault.setdefault(row.fault, {})[row.times] = (row, sdks)
    for fault, times in by_fault.items():
        said = []
        peers = []
        for when in ("once", "for ever"):
            if when not in times:
                said.append("")
                continue
            row, sdks = times[when]
            said.append(_words(cell for sdk in sdks.values() for cell in sdk.values()))
            if row.name in PEERS:
                peers.append(f"{when}: {PEERS[row.name]}")
        lines.append(f"| {fault} | {said[0]} | {said[1]} | {'; '.join(peers)} |")
    return "\n".join(lines)


def faults_found(row: Row, cell: Cell) -> Sequence[str]:
    """Return what is not as the row says."""
    found = []
    if not cell.struck and row.faults:
        found.append("the fault did not happen")
    if cell.shown.outcome not in row.outcomes:
        found.append(f"{cell.shown} in place of {sorted(row.outcomes)}")
    if cell.runs != row.runs:
        found.append(f"{cell.runs} runs in place of {row.runs}")
    if cell.leaked:
        found.append(f"left on the server: {sorted(cell.leaked)}")
    if cell.wrong:
        found.append(cell.wrong)
    return found
