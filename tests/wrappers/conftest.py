"""The server that the tests of wrappers share."""

import pytest

from tests.support.servers.process import RunningServer


@pytest.fixture
def server(contract: RunningServer) -> RunningServer:
    """Give one server: wrappers see no difference between versions."""
    return contract
