"""A plugin for pytest: the contract check as tests, and cassettes as a fixture.

``pytest --ors-url URL`` adds one test for each check. The fixture `ors_cassette`
records a server once, and plays the recording from then on.

pytest loads this module in every run where ors-gym is installed, so it imports nothing
of `ors_gym` until one of the two is asked for: that import takes longer than many a
test suite. It runs with any pytest from 7.0 on. ``-p no:ors_gym.testing.plugin``
switches it off.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ors_gym.testing.plugin import Cassettes

__all__ = [
    "ors_cassette",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
]


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
    group.addoption(
        "--ors-record",
        choices=("once", "none", "all"),
        default="once",
        help="cassettes: record those that are missing (default), none, or all anew",
    )


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each check, if there is a server to check."""
    if config.getoption("ors_url") is not None:
        from ors_gym.testing.plugin import contract_items  # noqa: PLC0415

        items += contract_items(session)


@pytest.fixture
def ors_cassette(request: pytest.FixtureRequest) -> Iterator[Cassettes]:
    """Give a function that returns the address of a recorded server.

    Example:
        >>> def test_my_agent(ors_cassette):
        ...     base_url = ors_cassette("http://localhost:8080")
        ...     assert play_with_my_agent(base_url) > 0
    """
    from ors_gym.testing.plugin import Cassettes  # noqa: PLC0415

    with Cassettes(request) as cassettes:
        yield cassettes


# pytest 7 does not know the newer `wrapper=True`.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Note that a test with cassettes passed: else its recording is not kept."""
    outcome = yield
    if "ors_cassette" in getattr(item, "fixturenames", ()):
        from ors_gym.testing.plugin import note_pass  # noqa: PLC0415

        report = outcome.get_result()
        if report.when == "call" and report.passed:
            note_pass(item)
