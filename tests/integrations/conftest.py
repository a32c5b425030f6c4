"""Fixtures for the frameworks' tests."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from ors_gym.server import serve
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.support.virtual_environments import ROOT


@pytest.fixture(scope="session")
def bundled() -> Iterator[str]:
    """Give the base URL of a server with the bundled environments."""
    with serve() as base_url:
        yield base_url


@pytest.fixture
def one_server(shared_server: Callable[[str], RunningServer]) -> RunningServer:
    """Give a server of the contract environments, its log marked."""
    return shared_server("ors-sdk-0.1.0")


@pytest.fixture
def proxy(one_server: RunningServer) -> Iterator[FaultProxy]:
    """Give a proxy before `one_server`, which breaks what it is told to."""
    with FaultProxy(one_server.base_url) as made:
        yield made


@pytest.fixture
def example() -> Callable[[str], SimpleNamespace]:
    """Give what loads a script of ``docs/examples`` without running its main part."""

    def load(name: str) -> SimpleNamespace:
        path = ROOT / "docs" / "examples" / f"{name}.py"
        return SimpleNamespace(**runpy.run_path(str(path)))

    return load
