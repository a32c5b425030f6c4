"""Both kinds of clients, blocking and async, and both libraries, httpx2 and httpx."""

import importlib
from typing import Any

import pytest


@pytest.fixture(params=["blocking", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=["httpx2", "httpx"])
def library(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)
