"""Both kinds of clients: blocking and async."""

import pytest


@pytest.fixture(params=["blocking", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
