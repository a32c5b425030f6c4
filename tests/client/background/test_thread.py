"""The background thread: when it starts, when it exits, and what a fork does to it."""

from __future__ import annotations

import gc
import os
import threading

import pytest

import ors_gym
from ors_gym.client.background import _thread
from ors_gym.client.background._thread import LoopThread, background
from tests.client.background.test_heartbeats import wait_until
from tests.support.servers.process import RunningServer


def test_the_thread_exits_after_the_last_session(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_thread, "_LINGER_SECONDS", 0.5)

    def running() -> bool:
        return any(thread.name == "ors_gym" for thread in threading.enumerate())

    with ors_gym.ORSClient(server.base_url) as client:
        with client.session("contract", split="train", index=0) as session:
            session.get_prompt()
            assert running()
        # Earlier tests may have left deletes that are due later.
        background().delete_all()
        gc.collect()
        wait_until(lambda: not running(), seconds=30.0)
        with client.session("contract", split="train", index=0) as session:
            assert session.get_prompt()
            assert running()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    thread = LoopThread("ors_gym-test")
    loop = thread.start()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert thread.loop is None
            ran = threading.Event()
            thread.start().call_soon_threadsafe(ran.set)
            code = 0 if ran.wait(10) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert thread.start() is loop
    thread.stop(10)
    assert thread.loop is None
    assert loop.is_closed()
