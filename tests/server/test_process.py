"""A server ends with its owner, however the owner ends, and never before."""

import os
import signal
import socket
import subprocess
from urllib.parse import urlsplit

import pytest

from ors_gym.client import ORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.server import serve
from ors_gym.server._process import ServerProcess, find_process
from tests.server import processes
from tests.support.slow_cases import mostly_slow

GUESS = "ors_gym.server.environments.guess:Guess"

START = """
    import os, signal, subprocess, sys
    from ors_gym.server import embedded_base_url
    from ors_gym.server._process import ServerProcess, _living
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets tests ignore it
    url = embedded_base_url()
    [server] = _living
    print(server._process.pid, url)
"""


def read_server(process: subprocess.Popen[str]) -> tuple[int, str]:
    pid, base_url = processes.next_line(process).split()
    assert processes.is_listening(base_url)
    assert processes.is_running(int(pid))
    return int(pid), base_url


@pytest.mark.parametrize(
    ("ending", "status"),
    mostly_slow([("raise ValueError", 1), ("sys.exit(3)", 3), ("", 0)]),
)
def test_nothing_is_left_when_the_owner_has_exited(ending: str, status: int):
    finished = processes.run_script(START + f"\n    {ending}\n")
    pid, base_url = finished.stdout.split()
    assert finished.returncode == status
    assert not processes.is_running(int(pid))
    assert not processes.is_listening(base_url)


FORK = """
    worker = os.fork()
    if not worker:
        sys.stdin.read()
        os._exit(0)
    print(worker)
"""
MULTIPROCESSING_FORK = """
    import multiprocessing
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=lambda: os.read(0, 1))
    worker.start()
    print(worker.pid)
"""
PROGRAM = """
    code = "import sys; sys.stdin.read()"
    worker = subprocess.Popen([sys.executable, "-c", code], close_fds=False)
    print(worker.pid)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start_worker", "how"),
    mostly_slow(
        [
            ("", signal.SIGKILL),
            (FORK, signal.SIGKILL),
            ("", signal.SIGTERM),
            ("", signal.SIGHUP),
            (MULTIPROCESSING_FORK, signal.SIGKILL),
            (PROGRAM, signal.SIGKILL),
        ],
        usual=2,
    ),
)
def test_the_server_ends_with_its_owner_even_if_a_worker_lives(start_worker, how):
    with processes.owner(START + start_worker + "\n    signal.pause()\n") as process:
        pid, base_url = read_server(process)
        worker = int(processes.next_line(process)) if start_worker else None
        process.send_signal(how)
        processes.wait_for_end(pid)
        assert not processes.is_listening(base_url)
        if worker is not None:
            assert processes.is_running(worker)
            assert process.stdin is not None
            process.stdin.close()
            processes.wait_for_end(worker)


@pytest.mark.slow
def test_a_fork_while_a_server_starts_does_not_hold_it():
    """Forks from one thread, servers from another: no child may keep a pipe open."""
    script = f"""
        import os, sys, threading
        from ors_gym.server._process import ServerProcess
        workers, done = [], threading.Event()
        def fork():
            while not done.is_set() and len(workers) < 200:
                worker = os.fork()
                if not worker:
                    sys.stdin.read()
                    os._exit(0)
                workers.append(worker)
        thread = threading.Thread(target=fork)
        thread.start()
        server = ServerProcess([{{"reference": "{GUESS}"}}])
        done.set()
        thread.join()
        print(server._process.pid, server.base_url)
        os.kill(os.getpid(), 9)
    """
    with processes.owner(script) as process:
        processes.wait_for_end(int(processes.next_line(process).split()[0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", mostly_slow(["sys.exit(0)", "raise ValueError", "os._exit(0)"])
)
def test_a_forked_child_does_not_take_the_server_along(ending: str):
    script = f"""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")
        {ending}
    os.waitpid(child, 0)
    print(server.is_running())
    """
    finished = processes.run_script(START + script)
    assert finished.stdout.split()[2:] == ["True"]
    assert finished.stderr == ""


def test_ctrl_c_in_the_terminal_is_for_the_owner_alone():
    script = """
    try:
        print("ready")
        signal.pause()
    except KeyboardInterrupt:
        print(server.is_running() and embedded_base_url() == url)
    """
    with processes.owner(START + script) as process:
        pid, _ = read_server(process)
        assert processes.next_line(process) == "ready"
        os.killpg(process.pid, signal.SIGINT)
        assert processes.next_line(process) == "True"
        process.wait(20)
        assert not processes.is_running(pid)


def test_ctrl_c_during_the_start_leaves_nothing():
    script = """
    import _thread, os, threading
    from ors_gym.server._process import ServerProcess
    started = []
    receive = ServerProcess._receive_line
    def interrupted(self):
        started.append(self._process.pid)
        _thread.interrupt_main()
        return receive(self)
    ServerProcess._receive_line = interrupted
    try:
        ServerProcess([])
    except KeyboardInterrupt:
        print(started[0])
    """
    finished = processes.run_script(script)
    assert not processes.is_running(int(finished.stdout))


def test_a_server_that_starts_is_no_obstacle_to_who_asks_for_another(monkeypatch):
    found = []
    receive = ServerProcess._receive_line

    def look(process: ServerProcess) -> bytes:
        found.append(find_process("http://127.0.0.1:1"))
        return receive(process)

    monkeypatch.setattr(ServerProcess, "_receive_line", look)
    with serve(GUESS) as base_url:
        assert found == [None]
        assert find_process(base_url) is not None


@pytest.mark.slow
def test_two_servers_do_not_know_each_other():
    with serve() as one:
        with serve(GUESS) as other:
            assert one != other
            with ORSClient(other) as client:
                assert client.list_environments() == ["guess"]
        assert not processes.is_listening(other)
        assert processes.is_listening(one)


def test_a_port_may_be_chosen_and_is_free_afterwards():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        with serve(GUESS, port=port) as base_url:
            assert base_url == f"http://127.0.0.1:{port}"
            with ORSClient(base_url) as client:
                assert client.num_tasks("guess", "test") == 200


def test_a_port_in_use_is_an_error_that_says_so(bundled_url: str):
    port = urlsplit(bundled_url).port
    with (
        pytest.raises(InvalidRequestError, match="Address already in use"),
        serve(GUESS, port=port),
    ):
        raise AssertionError


def test_a_server_that_was_stopped_twice_is_stopped():
    server = ServerProcess([{"reference": GUESS}])
    assert server.is_running()
    server.stop()
    server.stop()
    assert not server.is_running()
    assert not processes.is_listening(server.base_url)


@pytest.mark.slow
@pytest.mark.parametrize("blocked", mostly_slow(["submit", "teardown"]))
def test_an_environment_that_blocks_cannot_keep_the_server_alive(blocked: str):
    script = f"""
        import os, threading, time
        import ors
        from ors_gym.client import ORSClient
        from ors_gym.server import serve
        from ors_gym.server._process import _living
        class Blocking(ors.Environment):
            @classmethod
            def list_splits(cls): return ["train"]
            @classmethod
            def list_tasks(cls, split): return [{{}}]
            def get_prompt(self): return []
            def setup(self): pass
            @ors.tool
            def submit(self) -> ors.ToolOutput:
                '''Block.'''
                print("running", "{blocked}" == "submit", flush=True)
                while "{blocked}" == "submit": time.sleep(1)
                return ors.ToolOutput(blocks=[])
            def teardown(self):
                while "{blocked}" == "teardown": time.sleep(1)
        with serve(Blocking) as url:
            [server] = _living
            client = ORSClient(url)
            session = client.session("Blocking", split="train", index=0).open()
            threading.Thread(
                target=session.call_tool, args=("submit", {{}}), daemon=True
            ).start()
            print(server._process.pid, flush=True)
            while True: time.sleep(1)
    """
    with processes.owner(script) as process:
        pid = int(processes.next_line(process))
        process.kill()
        processes.wait_for_end(pid)
