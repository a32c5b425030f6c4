"""What a contract check found."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from typing import Final, Literal, TypeAlias

from ors_gym._shown_text import clean
from ors_gym.types import JSONObject

Status: TypeAlias = Literal["pass", "warn", "fail", "skipped"]
"""What a check says of a server; `Finding` has the meanings."""

_NAME_WIDTH: Final = 22
_TEXT_WIDTH: Final = 80 - 8 - _NAME_WIDTH


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name: The check.
        status: ``pass``; ``warn``, where clients can cope and training may suffer;
            ``fail``, where the server breaks the standard; or ``skipped``.
        detail: What was seen.
        fix: What to do about it; ``""`` if there is nothing to do.

    Example:
        >>> print(Finding("ping", "pass", "answered"))
        pass    ping                  answered
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        lines = _wrap(self.detail)
        if self.fix:
            lines += _wrap(f"-> {self.fix}")
        indent = " " * (8 + _NAME_WIDTH)
        return f"{self.status:8}{self.name:{_NAME_WIDTH}}" + f"\n{indent}".join(lines)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a contract check found of one environment.

    Args:
        base_url: The server's address.
        environment: The environment's name as the server spells it.
        findings: One for each check, in order.

    Example:
        >>> report = Report("http://h", "math", [Finding("ping", "pass", "answered")])
        >>> report.ok, report["ping"].status
        (True, 'pass')
    """

    base_url: str
    environment: str
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings are allowed."""
        return all(finding.status != "fail" for finding in self.findings)

    @property
    def statuses(self) -> dict[str, Status]:
        """The status of each check, by its name."""
        return {finding.name: finding.status for finding in self.findings}

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def to_dict(self) -> JSONObject:
        """Return the report as plain JSON values."""
        return {
            "server": self.base_url,
            "environment": self.environment,
            "ok": self.ok,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    @property
    def summary(self) -> str:
        """What was checked, and how many checks passed, in one line."""
        counts = Counter(finding.status for finding in self.findings)
        statuses: tuple[Status, ...] = ("pass", "warn", "fail", "skipped")
        summary = ", ".join(f"{counts[status]} {status}" for status in statuses)
        return f"{self.environment!r} at {self.base_url}: {summary}"

    def __str__(self) -> str:
        return "\n".join([self.summary, *map(str, self.findings)])


def _wrap(text: str) -> list[str]:
    lines = [textwrap.wrap(line, _TEXT_WIDTH) for line in clean(text).splitlines()]
    return [part for line in lines for part in line] or [""]
