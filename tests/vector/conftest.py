"""Fixtures for vector envs: one kind of server is enough for what they add."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer


@pytest.fixture
def one_server(shared_server: Callable[[str], RunningServer]) -> RunningServer:
    """A server, its log marked at the start of the test."""
    return shared_server("ors-sdk-0.1.0")


@pytest.fixture
def proxy(one_server: RunningServer) -> Iterator[FaultProxy]:
    """A proxy before `one_server`, which breaks what it is told to."""
    with FaultProxy(one_server.base_url) as made:
        yield made
