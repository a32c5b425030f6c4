"""Sessions are deleted however they end: docs/wire.md, points 11 and 14."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator

import httpx
import pytest

import ors_gym
from ors_gym.client.background import _deletes as deletes
from ors_gym.client.background._thread import background
from tests.support.processes import run_python
from tests.support.proxy.faults import Point, Reset
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.support.slow_cases import on_one_sdk

OPEN = """
import os, signal, sys, threading
import ors_gym

client = ors_gym.ORSClient({url!r})
sessions = [client.session("contract", split="train", index=i).open() for i in range(3)]
for session in sessions:
    session.get_prompt()
print("open", flush=True)
"""


def run(
    server: RunningServer, then: str, *, end: int | None = None, named: bool = False
) -> int:
    """Run a script that opens three sessions; end it by a signal once it has."""
    url = server.named_url if named else server.base_url
    script = OPEN.format(url=url) + textwrap.dedent(then)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        if end is not None:
            if "slow" in then:
                server.wait_for("run", 1, tool="slow")
            process.send_signal(end)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert "Exception ignored" not in errors
    assert "was destroyed" not in errors
    assert "never retrieved" not in errors
    return process.returncode


def test_a_session_that_nobody_holds(server: RunningServer) -> None:
    with ors_gym.ORSClient(server.base_url) as client:
        session = client.session("contract", split="train", index=0).open()
        session.get_prompt()
        del session
        gc.collect()
        server.wait_for("teardown")


def test_an_env_that_nobody_holds(server: RunningServer) -> None:
    env = ors_gym.ORSEnv("contract", server.base_url)
    env.reset(seed=0)
    del env
    gc.collect()
    server.wait_for("teardown")


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("", 0),
        ("raise RuntimeError('boom')", 1),
        ("sys.exit(3)", 3),
        ("threading.Thread(target=sessions[0].close).start()", 0),
    ],
)
@pytest.mark.parametrize("named", [False, True])
@on_one_sdk
def test_the_interpreter_exits(server, then, code, named):
    # No thread can be started then, and the event loop's look-up of names needs one.
    assert run(server, then, named=named) == code
    server.wait_for("teardown", 3)


def test_control_c_during_a_call(server: RunningServer) -> None:
    then = "sessions[0].call_tool('slow', {'seconds': 20})"
    assert run(server, then, end=signal.SIGINT) != 0
    server.wait_for("teardown", 3)


def test_sigterm_deletes_where_it_was_asked_for(server: RunningServer) -> None:
    then = "ors_gym.delete_sessions_on_sigterm(); print('ready', flush=True); "
    then += "signal.pause()"
    script = OPEN.format(url=server.base_url) + then
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        assert [lines.readline(), lines.readline()] == ["open\n", "ready\n"]
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM
    server.wait_for("teardown", 3)


SLOW = {"id": "0", "construct_seconds": 1.0}
WAYS = {
    "env": "ors_gym.ORSEnv('contract', {url!r}, tasks={tasks}).reset()",
    "vector": "ors_gym.ORSVectorEnv('contract', {url!r}, 8, tasks={tasks}).reset()",
    "prefetch": "ors_gym.ORSEnv('contract', {url!r}, tasks=[{{'id': '1'}}, *{tasks}], "
    "prefetch=True).reset(seed=0); signal.pause()",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_sigterm_while_sessions_are_created(server: RunningServer, way: str) -> None:
    # A constructor that sleeps in turn with the others would outlast the deletes.
    task = SLOW if way == "env" else {"id": "0", "construct_seconds": 0.2}
    script = f"""
import signal
import ors_gym
ors_gym.delete_sessions_on_sigterm(20.0)
{WAYS[way].format(url=server.base_url, tasks=[task])}
"""
    count = {"env": 1, "vector": 8, "prefetch": 2}[way]
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        server.wait_for("construct", count if way == "prefetch" else 1)
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert_nothing_is_left(server)


def assert_nothing_is_left(server: RunningServer) -> None:
    """Check that every session that was ever constructed is gone from the server."""
    begun = {entry["session"] for entry in server.log("construct")}
    assert begun
    for session_id in begun:
        # Known to the server once its constructor is over.
        if not server.log("teardown", session=session_id):
            server.wait_for("setup", session=session_id)
            assert not is_alive(server, session_id)


DAEMONS = """
import sys, threading
import ors_gym

def play():
    env = ors_gym.ORSEnv("contract", {url!r})
    while True:
        env.reset()
        env.step({{"tool": "add", "input": {{"a": 1, "b": 2}}}})

for _ in range(8):
    threading.Thread(target=play, daemon=True).start()
sys.stdin.readline()
"""


@pytest.mark.slow
def test_threads_that_play_while_the_interpreter_exits(server: RunningServer) -> None:
    command = [sys.executable, "-c", DAEMONS.format(url=server.base_url)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        server.wait_for("done", 50)
        process.communicate(b"end\n", timeout=30)
    assert process.returncode == 0
    assert_nothing_is_left(server)


MANY = """
import asyncio, os, resource
import ors_gym

resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))

async def main():
    client = ors_gym.AsyncORSClient({url!r}, limits=ors_gym.Limits(connections=50))
    def open_one(i):
        return client.session("contract", split="train", index=i % 12).open()
    kept = await asyncio.gather(*(open_one(i) for i in range({count})))
    return client, kept

kept = asyncio.run(main())
files = []
while {fill}:
    try:
        files.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
print(len(kept[1]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fill", [False, True])
@on_one_sdk
def test_an_exit_with_more_sessions_than_descriptors(server, fill):
    script = MANY.format(url=server.base_url, count=200, fill=fill)
    done = run_python("-c", script)
    assert (done.stdout, done.stderr, done.returncode) == ("200\n", "", 0)
    assert_nothing_is_left(server)


def test_set_up_that_fails_is_deleted_twice(server: RunningServer) -> None:
    with FaultProxy(server.base_url) as proxy:
        script = f"""
import ors_gym
client = ors_gym.ORSClient({proxy.url!r})
try:
    with client.session("brokensetup", split="train", index=0) as session:
        session.get_prompt()
except ors_gym.SetupFailedError:
    print("failed")
"""
        done = run_python("-c", script)
        assert done.stdout == "failed\n", done.stderr
        assert len(proxy.requests("/delete")) == 2


def test_a_forked_child_deletes_nothing(server: RunningServer) -> None:
    with ors_gym.ORSClient(server.base_url) as client:
        session = client.session("contract", split="train", index=0).open()
        session.get_prompt()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                session.close()
                del session
                gc.collect()
                client.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert session.call_tool("add", {"a": 1, "b": 2})["reward"] == 0.5
        assert server.log("teardown") == []
        session.close()
    server.wait_for("teardown")


def test_closing_twice_and_using_a_closed_session(server: RunningServer) -> None:
    with ors_gym.ORSClient(server.base_url) as client:
        with client.session("contract", split="train", index=0) as session:
            session.get_prompt()
        session.close()
        with pytest.raises(ors_gym.SessionClosedError, match="was closed"):
            session.call_tool("add", {"a": 1, "b": 2})
        with pytest.raises(ors_gym.SessionClosedError):
            session.open()
        unopened = client.session("contract", split="train", index=0)
        with pytest.raises(ors_gym.SessionClosedError, match="not open"):
            unopened.get_prompt()
    assert len(server.log("teardown")) == 1


SECONDS = 1.0


@pytest.fixture
def proxy(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy that sees the deletes; the second ones wait until they are asked for."""
    monkeypatch.setattr(deletes, "_AGAIN_SECONDS", 3600.0)
    with FaultProxy(server.base_url) as proxy:
        yield proxy


def delete_again() -> None:
    for delete in list(background()._deletes._later):
        delete.due = 0.0


def play(proxy: FaultProxy) -> tuple[str, float | None]:
    """Lose the first /create; return that session's id, and the reward in the next."""
    proxy.plan("/create", (Reset(Point.BEFORE_REPLY, finish=False),))
    task = {"id": "0", "construct_seconds": SECONDS}
    with (
        ors_gym.ORSClient(proxy.url) as client,
        client.session("contract", task) as session,
    ):
        session.get_prompt()
        reward = session.call_tool("add", {"a": 1, "b": 2})["reward"]
        opened = session.session_id
    lost, used = [request.session_id for request in proxy.requests("/create")]
    assert used == opened
    assert lost is not None
    return lost, reward


def is_alive(server: RunningServer, session_id: str) -> bool:
    header = {"X-Session-ID": session_id}
    reply = httpx.post(f"{server.base_url}/ping", headers=header, timeout=30)
    return reply.status_code == 200


@pytest.mark.slow
def test_the_second_delete_takes_what_the_first_did_not(server, proxy):
    session_id, reward = play(proxy)
    assert reward == 0.5
    proxy.wait_for(2, "/delete")
    deletes = [r.session_id for r in proxy.requests("/delete")]
    assert deletes.count(session_id) == 1
    if server.sdk.name.startswith("openreward"):
        # Constructed in a thread, and known to nobody before that is over.
        server.wait_for("ready", session=session_id)
        assert is_alive(server, session_id)
        assert not server.log("teardown", session=session_id)
        delete_again()
        server.wait_for("teardown", session=session_id)
    else:
        # Blocked by its constructor; the delete had its turn after that.
        delete_again()
    proxy.wait_for(3, "/delete")
    proxy.wait_until_done()
    deletes = [r.session_id for r in proxy.requests("/delete")]
    assert deletes.count(session_id) == 2
    assert not is_alive(server, session_id)
    assert server.runs(session=session_id) == 0
