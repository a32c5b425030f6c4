"""Plays the whole matrix and prints it.

    python -m tests.system.faults [WORD...]

Only the rows whose name holds one of the words, if there are any.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from tests.support.servers.venvs import SDKS
from tests.system.faults.playing import Cell, play_all, serving
from tests.system.faults.rows import ROWS, Row
from tests.system.faults.table import as_markdown, faults_found


def main(words: Sequence[str]) -> int:
    """Play rows on both current SDKs; returns how many cells are not as they should."""
    names = [name for name, sdk in SDKS.items() if sdk.current]
    chosen = [r for r in ROWS if not words or any(word in r.name for word in words)]
    played: dict[Row, Mapping[str, Mapping[str, Cell]]] = {}
    wrong = 0
    cells = 0
    with serving(names) as server_of:
        found_of = {name: play_all(chosen, name, server_of) for name in names}
        for row in chosen:
            played[row] = {name: found_of[name][row] for name in names}
            for name, columns in played[row].items():
                for column, cell in columns.items():
                    cells += 1
                    found = faults_found(row, cell)
                    wrong += bool(found)
                    for what in found:
                        print(f"{row.name}, {column}, {name}: {what}", file=sys.stderr)  # noqa: T201
    print(as_markdown(played))  # noqa: T201
    print(f"\n{cells} cells, {wrong} of them wrong")  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
