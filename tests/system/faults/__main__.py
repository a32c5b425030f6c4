"""Plays the whole matrix and prints it.

    python -m tests.system.faults [WORD...]

Only the rows whose name holds one of the words, if there are any.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.support.servers.venvs import SDKS
from tests.system.faults.matrix import ROWS, Row
from tests.system.faults.trials import Cell, play_all, serving

Played = Mapping[str, Mapping[str, Cell]]  # what came of a row, by SDK and client

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
    cells = list(cells)
    runs = sorted({cell.runs for cell in cells})
    outcomes = sorted({cell.shown.outcome for cell in cells})
    counted = " or ".join(f"{n} run" if n == 1 else f"{n} runs" for n in runs)
    return f"{counted}, {' or '.join(outcomes)}"


def as_markdown(played: Mapping[Row, Played]) -> str:
    """Return the table: a line for each fault, the clients merged where they agree."""
    lines = ["| fault | once | for ever | the SDKs' own clients |", "|---|---|---|---|"]
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


def main(words: Sequence[str]) -> int:
    """Play rows on both current SDKs; returns how many cells are not as they should."""
    names = [name for name, sdk in SDKS.items() if sdk.current]
    chosen = [r for r in ROWS if not words or any(word in r.name for word in words)]
    played: dict[Row, Played] = {}
    wrong = cells = 0
    with serving(names) as server_of:
        found_of = {name: play_all(chosen, name, server_of) for name in names}
        for row in chosen:
            played[row] = {name: found_of[name][row] for name in names}
            for name, clients in played[row].items():
                for client, cell in clients.items():
                    cells += 1
                    found = cell.mistakes(row)
                    wrong += bool(found)
                    for what in found:
                        print(f"{row.name}, {client}, {name}: {what}", file=sys.stderr)  # noqa: T201
    print(as_markdown(played))  # noqa: T201
    print(f"\n{cells} cells, {wrong} of them wrong")  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
