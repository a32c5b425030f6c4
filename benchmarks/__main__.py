"""``python -m benchmarks``: the budgets, measured side by side in one run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import pathlib
import platform
import time

from benchmarks import budgets
from benchmarks.plots import plot_curves


def main() -> None:
    """Measure, print the table, and write the figures and the picture if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=7, help="counted turns; default 7"
    )
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    parser.add_argument("--picture", type=pathlib.Path, help="write the curves here")
    options = parser.parse_args()
    rows, curves = budgets.measure(options.rounds)
    width = max(len(row.what) for row in rows)
    for row in rows:
        verdict = "met" if row.met else "NOT MET"
        print(f"{row.what:{width}}  {row.figure:>10}  budget {row.budget:<8} {verdict}")
    if options.json:
        versions = {
            name: importlib.metadata.version(name)
            for name in ("ors-gym", "gymnasium", "httptools", "httpx", "numpy")
        }
        record = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": platform.python_version(),
            "versions": versions,
            "budgets": [row.as_json() for row in rows],
            "curves": curves,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    if options.picture:
        plot_curves(curves, options.picture)


if __name__ == "__main__":
    main()
