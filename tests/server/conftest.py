"""The bundled environments in a process of their own, one per worker."""

from collections.abc import Iterator

import pytest

from ors_gym.client import ORSClient
from ors_gym.server import serve


@pytest.fixture(scope="session")
def bundled_url() -> Iterator[str]:
    with serve() as base_url:
        yield base_url


@pytest.fixture
def client(bundled_url: str) -> Iterator[ORSClient]:
    client = ORSClient(bundled_url)
    yield client
    client.close()
