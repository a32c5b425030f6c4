"""Both kinds of clients: blocking and async."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["blocking", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
