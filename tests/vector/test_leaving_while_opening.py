"""A process that ends while it opens a session ahead leaves none behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.proxy.faults import Point, Stall
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer

SCRIPT = """
import sys
from ors_gym import ORSVectorEnv
envs = ORSVectorEnv("Contract", sys.argv[1], num_envs=1)
envs.reset(seed=0)
sys.stdin.readline()
envs.step([{"tool": "submit", "input": {"answer": "0"}}])
if sys.argv[2] == "close":
    envs.close()
"""


@pytest.mark.parametrize("seconds", [0.3, 30.0])
@pytest.mark.parametrize("way", ["close", "leave"])
def test_no_session_is_left(
    one_server: RunningServer, proxy: FaultProxy, way: str, seconds: float
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, proxy.url, way], stdin=subprocess.PIPE
    )
    with child:
        one_server.wait_for("prompt", 1)
        proxy.plan("/create", [Stall(Point.BEFORE_REPLY, seconds)])
        child.communicate(b"go\n", timeout=30)
    assert child.returncode == 0
    # The session of the episode, and the one after it.
    one_server.wait_for("teardown", 2)
    assert one_server.open_sessions() == set()
