"""What the tests of wrappers share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.servers.process import RunningServer


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Give a function that has an env closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda env: stack.enter_context(contextlib.closing(env))


@pytest.fixture
def server(contract: RunningServer) -> RunningServer:
    """Give one server: wrappers see no difference between versions."""
    return contract
