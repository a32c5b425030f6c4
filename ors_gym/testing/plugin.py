"""What the pytest plugin does once it is asked to; `pytest_ors_gym` is the plugin.

Where ors-gym is not installed, as in a checkout: ``pytest -p ors_gym.testing.plugin``.
Where it is, pytest knows the plugin by this name and loads it once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import pytest

from ors_gym._shown_text import clean
from ors_gym.env._settings import find_server
from ors_gym.server import serve
from ors_gym.testing._cassettes.control import record
from ors_gym.testing._check_server import check_server
from ors_gym.testing._checks import CHECKS
from ors_gym.testing._report import Report
from pytest_ors_gym import (
    ors_cassette,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
)

__all__ = [
    "Cassettes",
    "ContractItem",
    "contract_items",
    "note_pass",
    "ors_cassette",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
]

_PASSED: Final = pytest.StashKey[bool]()


def contract_items(session: pytest.Session) -> list[ContractItem]:
    """Return a test for each check of the server that the options name."""
    option = session.config.getoption
    no_calls = option("ors_no_calls")

    @functools.cache
    def check() -> Report:
        return check_server(
            option("ors_url"),
            option("ors_env"),
            calls=False if no_calls else option("ors_calls") or True,
            split=option("ors_split"),
        )

    return [
        ContractItem.from_parent(session, name=f"ors: {one.name}", report=check)
        for one in CHECKS
    ]


def note_pass(item: pytest.Item) -> None:
    """Note that a test was run to its end, and passed."""
    item.stash[_PASSED] = True


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


class Cassettes:
    """The recorded servers of one test.

    A cassette that is missing is recorded, and kept if the test passes. From then on it
    is played, and neither the server nor its environments are needed. It is in the
    folder ``cassettes`` beside the test's file. ``--ors-record=none`` fails where one
    is missing, as is right for CI; ``--ors-record=all`` records anew.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node = request.node
        self._mode = request.config.getoption("ors_record")
        self._open: dict[Path, str] = {}
        self._new: dict[Path, Path] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for path, new in self._new.items():
            if not self._node.stash.get(_PASSED, False):
                # Also of a test that was skipped or interrupted in the middle.
                new.unlink(missing_ok=True)
            elif new.exists():
                new.replace(path)

    def __call__(self, server: str | type[Any] | None = None, *, name: str = "") -> str:
        """Return the address of a server that is recorded, or played.

        Args:
            server: What to record: an address, an environment class or
                ``"module:Class"`` to serve meanwhile, or None for ``ORS_BASE_URL`` or
                the bundled environments.
            name: Tells the cassettes of a test that needs several.

        Returns:
            The base URL.
        """
        path = self.path(name)
        if path not in self._open:
            missing = not path.exists()
            if missing and self._mode == "none":
                pytest.fail(f"there is no cassette {path}; run without --ors-record")
            if missing or self._mode == "all":
                self._open[path] = self._record(server, path)
            else:
                self._open[path] = self._stack.enter_context(serve(cassette=path))
        return self._open[path]

    def path(self, name: str = "") -> Path:
        """Return where a cassette of the test is."""
        test = _name_file(self._node.nodeid.partition("::")[2])
        file = f"{test}-{name}.jsonl" if name else f"{test}.jsonl"
        folder: Path = self._node.path.parent / "cassettes" / self._node.path.stem
        return folder / file

    def _record(self, server: str | type[Any] | None, path: Path) -> str:
        new = self._new[path] = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        if isinstance(server, type) or (server and "://" not in server):
            server = self._stack.enter_context(serve(server))
        return self._stack.enter_context(record(find_server(server), new))


def _name_file(test: str) -> str:
    """Write a test's name, such as ``Test::test_it[0]``, as ``Test.test_it_0``.

    Where that loses a character, a digest keeps two tests apart.
    """
    dotted = test.replace("::", ".")
    written = re.sub(r"[^\w.=-]+", "_", dotted).strip("_")
    if written == re.sub(r"\[(.*)\]$", r"_\1", dotted):
        return written
    return f"{written}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"
