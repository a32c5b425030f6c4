"""Sessions end with their vector env, however that ends; and where it may be used."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import ors_gym
from ors_gym.env import AsyncTaskEnv
from ors_gym.vector import ORSVectorEnv
from ors_gym.vector._loop import SlotLoop
from tests.support.proxy.faults import Point, Stall
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.vector.same_results import (
    ADD,
    ENVS,
    MARKED,
    is_marked,
    make_vector,
    open_envs,
    submit,
)


def test_what_is_known_of_the_server_is_asked_once(proxy: FaultProxy) -> None:
    with contextlib.closing(make_vector(proxy.url, num_envs=8)) as envs:
        for _ in range(2):
            envs.reset()
            envs.step([submit(0)] * 8)
            envs.step([ADD] * 8)
        envs.get_attr("splits")
        envs.get_attr("num_tasks")
    for path in ("openapi.json", "list_environments", "tools", "splits", "num_tasks"):
        assert len(proxy.requests(f"/{path}")) == 1, path
    assert len(proxy.requests("/create_session")) == 4 * 8
    assert proxy.connections <= 8 + 2 * 8


def test_making_one_opens_no_session(proxy: FaultProxy) -> None:
    make_vector(proxy.url).close()
    assert proxy.requests("/create_session") == []


def test_close_deletes_every_session_and_may_be_repeated(one_server: RunningServer):
    envs = make_vector(one_server.base_url)
    envs.reset(seed=0)
    envs.step([ADD, submit(0), ADD, ADD])
    # The next session of the second one is opened ahead.
    one_server.wait_for("prompt", ENVS + 1)
    envs.close()
    envs.close()
    one_server.wait_for("teardown", ENVS + 1)
    assert one_server.open_sessions() == set()
    with pytest.raises(ors_gym.EpisodeOverError, match="closed"):
        envs.step([ADD] * ENVS)
    with pytest.raises(ors_gym.SessionClosedError, match="closed"):
        envs.reset()
    with pytest.raises(ors_gym.SessionClosedError, match="closed"):
        envs.get_attr("num_tasks")


@pytest.mark.parametrize("way", ["step", "send"])
def test_one_closed_after_an_episode_says_so(one_server, way):
    envs = make_vector(one_server.base_url, 2, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step([ADD, ADD])
    envs.close()
    with pytest.raises(ors_gym.SessionClosedError, match="closed"):
        getattr(envs, way)([ADD, ADD])


def test_close_does_not_wait_for_calls_under_way(one_server, proxy):
    envs = make_vector(proxy.url)
    envs.reset(seed=0)
    proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], then="forever")
    envs.send([ADD] * ENVS)
    proxy.wait_for(ENVS, "/call")
    envs.close()
    one_server.wait_for("teardown", ENVS)


def test_a_client_of_the_user_is_not_closed(one_server: RunningServer) -> None:
    client = ors_gym.AsyncORSClient(one_server.base_url)
    for _ in range(2):
        envs = ORSVectorEnv("Contract", num_envs=2, client=client)
        with contextlib.closing(envs):
            envs.reset(seed=0)
            assert envs.step([ADD, ADD])[1].tolist() == [0.5, 0.5]
    assert asyncio.run(client.list_environments())
    asyncio.run(client.aclose())


@pytest.mark.parametrize("busy", [False, True])
def test_one_that_nobody_holds_is_collected_with_its_sessions(one_server, busy):
    envs = make_vector(one_server.base_url)
    envs.reset(seed=0)
    if busy:
        envs.send([{"tool": "slow", "input": {"seconds": 0.2}}] * ENVS)
    del envs
    gc.collect()
    one_server.wait_for("teardown", ENVS)


@pytest.mark.parametrize("named", [False, True])
def test_a_program_that_just_ends_leaves_nothing_behind(one_server, named):
    url = one_server.named_url if named else one_server.base_url
    program = (
        "import logging\n"
        # Of asyncio's words only those that count: a busy machine is slow at times.
        "logging.getLogger('asyncio').setLevel(logging.ERROR)\n"
        "from ors_gym.vector import ORSVectorEnv\n"
        f"envs = ORSVectorEnv('contract', {url!r}, 3)\n"
        "envs.reset(seed=0)\n"
        "envs.send([{'tool': 'slow', 'input': {'seconds': 0.2}}], [1])\n"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    one_server.wait_for("teardown", 3)


def play(base_url: str) -> list[str]:
    with contextlib.closing(make_vector(base_url)) as envs:
        observations, _ = envs.reset(seed=1)
        shown = list(observations)
        shown += envs.step([submit(2)] * ENVS)[0]
        envs.send([ADD] * ENVS)
        shown += envs.recv(ENVS)[0]
        return shown


def test_it_works_inside_a_running_loop_and_leaves_that_alone(one_server):
    expected = play(one_server.base_url)

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        shown = play(one_server.base_url)
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        return shown

    assert sorted(asyncio.run(main())) == sorted(expected)
    assert "ors_gym vector" not in [thread.name for thread in threading.enumerate()]


def test_one_made_outside_may_be_stepped_inside_a_loop_and_back(one_server):
    with open_envs(one_server.base_url) as envs:

        async def step() -> list[float]:
            return list(envs.step([ADD] * ENVS)[1])

        assert asyncio.run(step()) == [0.5] * ENVS
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS


def test_each_thread_may_have_its_own(one_server: RunningServer) -> None:
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(play(one_server.base_url)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    assert sorted(results[0]) == sorted(results[1]) == sorted(results[2])


def in_child(work: Any) -> str:
    """Fork, run work in the child, and return what went wrong there."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks beside threads, such as the background's.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        said = "ok"
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_forked_child_leaves_the_parents_sessions_alone(one_server, prefetch):
    envs = make_vector(one_server.base_url, prefetch=prefetch)
    envs.reset(seed=0)
    envs.send([ADD], [2])

    def work() -> None:
        with pytest.raises(ors_gym.EpisodeOverError, match="fork"):
            envs.step([ADD] * ENVS)
        envs.reset(seed=4)
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS
        envs.close()
        gc.collect()

    assert in_child(work) == "ok"
    assert envs.recv()[1].tolist() == [0.5]
    assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS
    envs.step([submit(0)] * ENVS)
    assert envs.step([ADD] * ENVS)[0][0] == "4 + 4 = ?"
    envs.close()


def test_a_child_that_never_touches_it_does_no_harm(one_server: RunningServer) -> None:
    with open_envs(one_server.base_url) as envs:
        holder = [envs]

        def work() -> None:
            holder.clear()
            gc.collect()

        for _ in range(2):
            assert in_child(work) == "ok"
            assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS


def interrupt_when_called(proxy: FaultProxy) -> threading.Thread:
    """Press Ctrl-C as soon as a marked call has arrived."""

    def press() -> None:
        with contextlib.suppress(TimeoutError):
            proxy.wait_for(ENVS, "/call")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("way", ["step", "recv"])
def test_after_ctrl_c_it_can_be_reset(proxy: FaultProxy, way: str) -> None:
    with open_envs(proxy.url) as envs:
        proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
        actions = [ADD, MARKED, ADD, ADD]
        thread = interrupt_when_called(proxy)
        with pytest.raises(KeyboardInterrupt):
            if way == "step":
                envs.step(actions)
            else:
                envs.send(actions)
                envs.recv(ENVS)
        thread.join()
        with pytest.raises(ors_gym.EpisodeOverError, match="interrupted"):
            envs.step([ADD] * ENVS)
        observations, _ = envs.reset(seed=2)
        assert observations[0] == "2 + 2 = ?"
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS


def end_once(server: RunningServer, event: str, end: Any) -> threading.Thread:
    """Have another thread end what waits, as soon as the server is at it."""

    def work() -> None:
        with contextlib.suppress(TimeoutError):
            server.wait_for(event, 2 * ENVS if event == "construct" else ENVS)
        end()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("way", ["reset", "step", "recv", "inside a loop"])
@pytest.mark.parametrize("by", ["thread", "handler"])
def test_closing_ends_what_waits(one_server, proxy, way, by):
    envs = make_vector(proxy.url)
    envs.reset(seed=0)
    path = "/create" if way == "reset" else "/call"
    proxy.plan(path, [Stall(Point.BEFORE_REPLY)], then="forever")
    before = signal.signal(signal.SIGUSR1, lambda *_: envs.close())

    def end() -> None:
        if by == "thread":
            envs.close()
        else:
            os.kill(os.getpid(), signal.SIGUSR1)

    async def step() -> None:
        envs.step([ADD] * ENVS)

    thread = end_once(one_server, "construct" if way == "reset" else "run", end)
    with pytest.raises(ors_gym.SessionClosedError, match="closed"):
        if way == "reset":
            envs.reset(seed=4)
        elif way == "recv":
            envs.send([ADD] * ENVS)
            envs.recv(ENVS)
        elif way == "step":
            envs.step([ADD] * ENVS)
        else:
            asyncio.run(step())
    thread.join()
    signal.signal(signal.SIGUSR1, before)
    envs.close()
    with pytest.raises((ors_gym.EpisodeOverError, ors_gym.SessionClosedError)):
        envs.step([ADD] * ENVS)
    one_server.wait_for("teardown", 2 * ENVS if way == "reset" else ENVS)


def test_ctrl_c_inside_a_loop_too(proxy: FaultProxy) -> None:
    # A loop without asyncio.run's own handling of Ctrl-C, as a notebook's.
    loop = asyncio.new_event_loop()

    async def main() -> None:
        with open_envs(proxy.url) as envs:
            proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
            thread = interrupt_when_called(proxy)
            with pytest.raises(KeyboardInterrupt):
                envs.step([ADD, MARKED, ADD, ADD])
            thread.join()
            envs.reset(seed=2)
            assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS

    loop.run_until_complete(main())
    loop.close()


def test_one_whose_construction_is_interrupted_is_collected(
    one_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch_tools(env: AsyncTaskEnv) -> None:
        # As `asyncio.timeout` does where Ctrl-C strikes inside of it.
        task = asyncio.current_task()
        asyncio.get_running_loop().call_later(60, print, task)
        raise KeyboardInterrupt

    def find_loops() -> int:
        gc.collect()
        # Not `isinstance`, which asks proxies of other libraries for their class.
        return sum(type(one) is SlotLoop for one in gc.get_objects())

    before = find_loops()
    monkeypatch.setattr(AsyncTaskEnv, "fetch_tools", fetch_tools)
    with pytest.raises(KeyboardInterrupt):
        make_vector(one_server.base_url)
    assert find_loops() == before
