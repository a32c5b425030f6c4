"""A plugin for pytest: ``pytest --ors-url URL`` adds one test for each check.

Where it is not installed as an entry point: ``pytest -p ors_gym.testing.plugin``.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from ors_gym._shown_text import clean
from ors_gym.testing._check_server import check_server
from ors_gym.testing._checks import CHECKS
from ors_gym.testing._report import Report

__all__ = ["ContractItem", "pytest_addoption", "pytest_collection_modifyitems"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ors", "contract check of an ORS server")
    group.addoption("--ors-url", help="the server's address; runs some of its tools")
    group.addoption("--ors-env", help="the environment, if the server has several")
    group.addoption("--ors-split", help="the split to play")
    group.addoption("--ors-no-calls", action="store_true", help="run no tool")
    group.addoption(
        "--ors-calls",
        type=json.loads,
        metavar="JSON",
        help='the calls of one episode: [{"tool": ..., "input": {...}}, ...]',
    )


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each check, if there is a server to check."""
    url = config.getoption("ors_url")
    if url is None:
        return
    no_calls = config.getoption("ors_no_calls")

    @functools.cache
    def check() -> Report:
        return check_server(
            url,
            config.getoption("ors_env"),
            calls=False if no_calls else config.getoption("ors_calls") or True,
            split=config.getoption("ors_split"),
        )

    items += [
        ContractItem.from_parent(session, name=f"ors: {one.name}", report=check)
        for one in CHECKS
    ]


class ContractItem(pytest.Item):
    """One check as a test: a warning of the check is a warning of the test.

    The server is checked when the first test asks for its finding.
    """

    def __init__(self, *, report: Callable[[], Report], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._report = report

    def runtest(self) -> None:
        """Skip, warn, fail or pass as the check did."""
        finding = self._report()[self.name.removeprefix("ors: ")]
        if finding.status == "skipped":
            pytest.skip(clean(finding.detail))
        if finding.status == "warn":
            warnings.warn(pytest.PytestWarning(str(finding)), stacklevel=1)
        if finding.status == "fail":
            pytest.fail(clean(f"{finding.detail}\n-> {finding.fix}"), pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        """Say what the test is called."""
        return "contract", None, self.name
