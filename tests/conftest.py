"""Fixtures for the whole suite: real servers, one of each kind per worker."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import hypothesis
import pytest

from tests.support.browser import chromium as chromium  # noqa: PLC0414 - a fixture
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer, start_server
from tests.support.servers.venvs import SDKS
from tests.support.virtual_environments import VenvBuildError

# A run starts hundreds of interpreters. Where none may keep bytecode, as in many
# containers, each of them would compile the package anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says more of a busy machine than of the code.
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")

# A shell that runs the tests in its background lets them ignore Ctrl-C, and so would
# the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first imports a server SDK, which is there in that SDK's own environment only;
# the other hides modules and functions from the process that imports it.
collect_ignore = ["support/servers/contract", "support/without_posix"]


def pytest_collection_finish() -> None:
    """Spare each later garbage collection the thousands of tests that were found."""
    gc.collect()
    gc.freeze()


CURRENT: Final = [name for name, sdk in SDKS.items() if sdk.current]
EVERY: Final = [
    name if sdk.current else pytest.param(name, marks=pytest.mark.old_sdks)
    for name, sdk in SDKS.items()
]


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Callable[[str], RunningServer]]:
    """Give the one server of an SDK version that this worker shares.

    Started when first asked for. A test that kills, restarts or configures its server
    uses `start_server` instead.
    """
    running: dict[str, RunningServer] = {}
    missing: dict[str, VenvBuildError] = {}
    with contextlib.ExitStack() as stack:

        def share(name: str) -> RunningServer:
            if name not in running and name not in missing:
                try:
                    running[name] = stack.enter_context(start_server(name))
                except VenvBuildError as error:
                    # Asked once: without a network each attempt takes its time.
                    missing[name] = error
            if name in missing and SDKS[name].current:
                raise missing[name]
            if name in missing:
                pytest.skip(str(missing[name]))
            running[name].mark()
            return running[name]

        yield share


@pytest.fixture
def contract(shared_server: Callable[[str], RunningServer]) -> RunningServer:
    """Give the shared server of ors-sdk, which has the environment ``Contract``."""
    return shared_server("ors-sdk-0.1.0")


@pytest.fixture(params=CURRENT)
def server(
    request: pytest.FixtureRequest, shared_server: Callable[[str], RunningServer]
) -> RunningServer:
    """A server of each current SDK, its log marked at the start of the test."""
    return shared_server(request.param)


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Give a function that has an env closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda env: stack.enter_context(contextlib.closing(env))


@pytest.fixture
def fault_proxy(server: RunningServer) -> Iterator[FaultProxy]:
    """A proxy before the `server` of the same test, which breaks what it is told to."""
    with FaultProxy(server.base_url) as proxy:
        yield proxy


@pytest.fixture
def one_server(shared_server: Callable[[str], RunningServer]) -> RunningServer:
    """A server, its log marked, for what does not depend on the SDK."""
    return shared_server("ors-sdk-0.1.0")


@pytest.fixture
def newest(shared_server: Callable[[str], RunningServer]) -> RunningServer:
    """A server of the newest SDK, its log marked: the one that has terminal tools."""
    return shared_server("openreward-0.1.167")


@pytest.fixture
def proxy(one_server: RunningServer) -> Iterator[FaultProxy]:
    """A proxy before the `one_server` of the same test."""
    with FaultProxy(one_server.base_url) as proxy:
        yield proxy


@pytest.fixture(params=EVERY)
def any_server(
    request: pytest.FixtureRequest, shared_server: Callable[[str], RunningServer]
) -> RunningServer:
    """A server of each SDK version, its log marked at the start of the test."""
    return shared_server(request.param)


@pytest.fixture(autouse=True)
def _without_a_server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hold the mark ``unit`` to its word: no process is started, no port is opened."""
    if request.node.get_closest_marker("unit") is None:
        return

    start = subprocess.Popen.__init__

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a test with the mark `unit` starts no process and no server")

    def refuse_process(self: Any, command: Any, *given: Any, **named: Any) -> None:
        # matplotlib lists the fonts once; NumPy 2.0 asks which processor this is.
        name = command if isinstance(command, str) else command[0]
        asks = name in {"fc-list", "lscpu"}
        (start if asks else refuse)(self, command, *given, **named)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse_process)

    def guard(call: Callable[..., Any]) -> Callable[..., None]:
        def at_an_address(self: socket.socket, *given: Any) -> None:
            # From Python 3.14 on multiprocessing asks a process of its own to fork.
            (call if self.family == socket.AF_UNIX else refuse)(self, *given)

        return at_an_address

    for method in ("connect", "listen"):
        monkeypatch.setattr(
            socket.socket, method, guard(getattr(socket.socket, method))
        )
