"""The one server of a process and its children."""

import pytest

from tests.server.processes import is_running, run_script
from tests.support.slow_cases import mostly_slow

START = """
    import os, subprocess, sys
    from ors_gym.server import embedded_base_url, serve
    from ors_gym.server._embedded import VARIABLE
    from ors_gym.server._process import _living
"""
ASK = "from ors_gym.server import embedded_base_url as f; print(f())"


def lines_of(script: str, **variables: str) -> list[str]:
    finished = run_script(START + script, variables=variables)
    assert finished.stderr == ""
    assert finished.returncode == 0
    return finished.stdout.splitlines()


def test_threads_that_ask_at_the_same_time_share_a_server():
    script = """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool:
        print(*pool.map(lambda _: embedded_base_url(), range(8)), sep="\\n")
    assert len(_living) == 1
    """
    lines = lines_of(script)
    assert len(lines) == 8
    assert len(set(lines)) == 1


FORK = """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        print(embedded_base_url(), len(_living), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
SPAWN = """
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        print(pool.apply(embedded_base_url), 0)
"""
PROGRAM = f"""
    command = [sys.executable, "-c", "{ASK}"]
    print(subprocess.check_output(command, text=True).strip(), 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("child", mostly_slow([SPAWN, FORK, PROGRAM]))
def test_a_child_finds_the_server_of_its_parent(child: str):
    url, of_child = lines_of("\n    print(embedded_base_url())\n" + child)
    assert of_child == f"{url} 0"


@pytest.mark.slow
def test_a_child_forked_while_another_thread_starts_the_server_is_not_blocked():
    script = """
    from ors_gym.server._embedded import _embedded
    with _embedded.lock:
        child = os.fork()
        if not child:
            print(embedded_base_url(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    print(embedded_base_url())
    """
    one, other = lines_of(script)
    assert one != other


@pytest.mark.slow
def test_a_child_that_outlives_its_parents_server_gets_its_own():
    script = """
    url = embedded_base_url()
    code = "; ".join([
        "import sys",
        "from ors_gym.server import embedded_base_url",
        "print(embedded_base_url(), flush=True)",
        "sys.stdin.read()",
        "print(embedded_base_url())",
    ])
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe)
    print(url, child.stdout.readline().decode().strip(), sep="\\n")
    [server] = _living
    server.stop()
    print(child.communicate()[0].decode().strip())
    """
    url, before, after = lines_of(script)
    assert before == url
    assert after.startswith("http://127.0.0.1:")
    assert after != url


@pytest.mark.slow
@pytest.mark.parametrize(
    "stale", mostly_slow(["http://127.0.0.1:1#.abc", "http://[#", "x", "#.", ""])
)
def test_a_variable_that_leads_nowhere_leads_to_a_new_server(stale: str):
    script = """
    print(embedded_base_url())
    print(os.environ[VARIABLE].partition("#")[0])
    """
    one, other = lines_of(script, ORS_GYM_EMBEDDED_URL=stale)
    assert one == other
    assert one.startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_another_server_on_the_port_is_not_mistaken_for_it(bundled_url: str):
    script = "\n    print(embedded_base_url())\n"
    [url] = lines_of(script, ORS_GYM_EMBEDDED_URL=f"{bundled_url}#.0123456789abcdef")
    assert url != bundled_url


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced():
    script = """
    print(embedded_base_url())
    [server] = _living
    server._process.kill()
    server._process.wait()
    print(embedded_base_url())
    """
    one, other = lines_of(script)
    assert one != other


@pytest.mark.slow
def test_a_worker_of_pytest_xdist_has_its_own_server():
    script = f"""
    print(embedded_base_url())
    for worker in ("gw0", "gw0", "gw1"):
        command = [sys.executable, "-c", "{ASK}"]
        variables = {{**os.environ, "PYTEST_XDIST_WORKER": worker}}
        print(subprocess.check_output(command, text=True, env=variables).strip())
    """
    urls = lines_of(script)
    assert len(urls) == len(set(urls)) == 4


def test_importing_the_package_starts_and_imports_nothing_of_the_sdk():
    script = """
    slow = {"ors", "uvicorn", "fastapi", "pydantic", "PIL", "cloudpickle"}
    print(sorted(slow & set(sys.modules)), len(_living), VARIABLE in os.environ)
    """
    assert lines_of(script) == ["[] 0 False"]


def test_an_episode_prints_nothing_and_leaves_nothing():
    script = """
    from ors_gym.client import ORSClient
    with ORSClient(embedded_base_url()) as client:
        with client.session("math", split="train", index=0) as session:
            session.get_prompt()
            session.call_tool("submit", {"answer": "1"})
    [server] = _living
    print(server._process.pid)
    """
    [pid] = lines_of(script)
    assert not is_running(int(pid))
