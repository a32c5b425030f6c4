"""The contract check's table for every server version, in ``docs/check.md``.

``python -m tests.testing.contract_table`` starts each server, checks it, and writes the
table anew.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ors_gym.testing import Report, check_server
from tests.support.servers.process import start_server
from tests.support.servers.venvs import SDKS

PAGE: Final = Path(__file__).parents[2] / "docs" / "check.md"
CALLS: Final = [
    {"tool": "echo", "input": {"text": "hello"}},
    {"tool": "slow_sync", "input": {"seconds": 0.5}},
    {"tool": "submit", "input": {"answer": "0"}},
]
BEGIN: Final = "<!-- table -->\n"
END: Final = "<!-- end -->\n"


def check(base_url: str) -> Report:
    return check_server(base_url, "Contract", calls=CALLS)


def read_table() -> dict[str, dict[str, str]]:
    """Read the table: for each server version the status of each check."""
    text = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {
        name: {row[0]: row[place] for row in rows}
        for place, name in enumerate(head)
        if place
    }


def write_table(reports: Mapping[str, Report]) -> str:
    names = list(reports)
    checks = list(next(iter(reports.values())).statuses)
    lines = [f"| check | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for one in checks:
        statuses = [report[one].status for report in reports.values()]
        lines.append(f"| {one} | {' | '.join(statuses)} |")
    lines += ["", "What is not a pass, and what the check says of it:", ""]
    for one in checks:
        said: dict[str, list[str]] = {}
        for name, report in reports.items():
            finding = report[one]
            if finding.status != "pass":
                detail = _without_figures(finding.detail)
                text = f"{detail}; {finding.fix}" if finding.fix else detail
                said.setdefault(text, []).append(name)
        for text, who in said.items():
            of = "every version" if len(who) == len(names) else ", ".join(who)
            lines.append(f"* **{one}** ({of}): {text}")
    return "\n".join(lines) + "\n"


def _without_figures(detail: str) -> str:
    """Leave out what differs from run to run: how long something took."""
    words = detail.split()
    return " ".join("..." if _is_seconds(word) else word for word in words)


def _is_seconds(word: str) -> bool:
    whole, point, part = word.partition(".")
    return bool(point) and whole.isdigit() and part.isdigit()


def main() -> int:
    reports = {}
    for name in SDKS:
        with start_server(name) as server:
            reports[name] = check(server.base_url)
        sys.stdout.write(f"{name}: ok={reports[name].ok}\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{write_table(reports)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
