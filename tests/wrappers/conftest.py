"""The servers that the tests of wrappers share."""

from collections.abc import Iterator

import pytest

from ors_gym.server import serve
from tests.support.gymnasium_envs import hostile
from tests.support.servers.process import RunningServer


@pytest.fixture
def server(contract: RunningServer) -> RunningServer:
    """Give one server: wrappers see no difference between versions."""
    return contract


@pytest.fixture(scope="session")
def native_url() -> Iterator[str]:
    """Give a server of Gymnasium environments."""
    with serve(
        "gymnasium:CartPole-v1",
        "gymnasium:FrozenLake-v1",
        "gymnasium:Blackjack-v1",
        "tests.support.gymnasium_envs:Nested",
        hostile("step raises"),
    ) as address:
        yield address
