"""``python -m benchmarks``: the budgets, measured side by side in one run.

Every promise is a row: what was measured, what it may be, and ``met`` or ``FAILED``.
The exit status is 1 if a row failed. CPU per call is the figure to trust on a machine
that does other things too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.budgets import PARTS
from benchmarks.plots import plot_curves
from benchmarks.rows import Row

_PACKAGES = (
    "ors-gym",
    "gymnasium",
    "httptools",
    "httpx",
    "httpx2",
    "aiohttp",
    "ors-sdk",
    "numpy",
)


def _record(rows: list[Row], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything for a file, so that a later run can be compared."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "budgets": [row.as_json() for row in rows],
        "figures": figures,
    }


def _print_peers(figures: Mapping[str, Any]) -> None:
    """Print what each client does on the real servers."""
    for where, clients in figures.items():
        print(f"\n{where}: calls/s, CPU of the client per call in us")
        for name, cost in clients.items():
            print(f"  {name:12}{cost['steps_per_s']:10.0f}{cost['cpu_us']:10.0f}")


def main() -> int:
    """Measure, print the table, and write the figures and the picture if asked to.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="counted turns; default 7"
    )
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    parser.add_argument("--picture", type=pathlib.Path, help="write the curves here")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    options = parser.parse_args()
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    for name in options.only or PARTS:
        start = time.monotonic()
        part = PARTS[name](options.rounds)
        rows += part.rows
        figures[name] = part.figures
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(_record(rows, figures), indent=2) + "\n")
    if options.picture and "many" in figures:
        plot_curves(figures["many"], options.picture)
    _print_peers(figures.get("peers") or {})
    width = max((len(row.what) for row in rows), default=0)
    for row in rows:
        verdict = "met" if row.met else "FAILED"
        print(f"{row.what:{width}}  {row.figure:>22}  budget {row.budget:<8} {verdict}")
    failed = [row.what for row in rows if not row.met]
    print(f"{len(rows) - len(failed)} of {len(rows)} budgets met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
