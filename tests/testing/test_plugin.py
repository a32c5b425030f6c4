"""The contract check as a plugin of pytest."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.running import HELLO
from tests.support.processes import run
from tests.support.slow_cases import on_one_sdk
from tests.support.virtual_environments import ROOT


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plugins = ("-p", "ors_gym.testing.plugin", "-p", "no:cacheprovider")
    pytest = (sys.executable, "-m", "pytest", "-rA", *plugins)
    # The plugins of others take most of the time of such a run.
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return run(*pytest, *arguments, seconds=100, cwd=folder, environment=alone)


@on_one_sdk
def test_each_check_is_a_test(server, tmp_path):
    done = run_pytest(
        *(tmp_path, "--ors-url", server.base_url, "--ors-env", "contract"),
        *("--ors-calls", '[{"tool": "submit", "input": {"answer": "0"}}]'),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ors: resume" in done.stdout
    assert "answer 404" in done.stdout
    assert server.runs("submit") > 0


@on_one_sdk
def test_a_failure_fails_the_run(server, tmp_path):
    server_options = ("--ors-url", server.base_url, "--ors-env", "brokensetup")
    done = run_pytest(tmp_path, *server_options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "database is locked" in done.stdout


def test_without_a_server_nothing_is_added(tmp_path):
    assert run_pytest(tmp_path).returncode == 5


TEST_OF_AN_AGENT = """
import gymnasium, pytest, ors_gym

@pytest.mark.parametrize("task", [0, 1])
def test_agent(ors_cassette, task):
    url = ors_cassette("mine:Hello")
    env = gymnasium.make("ors/remote", env_name="hello", base_url=url)
    env.reset(options={"task_index": 0})
    result = env.step({"tool": "hello", "input": {}})
    env.close()
    assert result[:3] == ("Hello!", 1.0, True)

def test_that_fails(ors_cassette):
    with ors_gym.ORSClient(ors_cassette("mine:Hello")) as client:
        assert client.list_environments() == []
"""


@pytest.mark.slow
def test_a_cassette_is_recorded_once_and_played_from_then_on(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    test = tmp_path / "test_agent.py"
    test.write_text(TEST_OF_AN_AGENT)
    folder = tmp_path / "cassettes" / "test_agent"
    done = run_pytest(tmp_path, "--ors-record=once")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    # Nothing is kept of a test that failed.
    names = ["test_agent_0.jsonl", "test_agent_1.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == names
    # Without the environment, and with a changed call.
    (tmp_path / "mine.py").unlink()
    test.write_text(TEST_OF_AN_AGENT.replace('"input": {}', '"input": {"n": task}'))
    kept = (folder / names[0]).read_text()
    (folder / names[1]).write_text(kept.replace('"input":{}', '"input":{"n":1}'))
    done = run_pytest(tmp_path, "--ors-record=none")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "2 failed" in done.stdout
    assert "input.n is 0, was absent" in done.stdout
    assert "there is no cassette" in done.stdout


TEST_WITH_SIGNS = """
import pytest

NAMES = set()

@pytest.mark.parametrize("sign", ["<", ">", "a<", "b/c", "b c", "[b]", "0", "k=-1.5"])
def test_sign(ors_cassette, sign):
    NAMES.add(ors_cassette.path().name)

class TestMore:
    def test_sign(self, ors_cassette):
        NAMES.add(ors_cassette.path("second").name)

def test_sign_alone(ors_cassette):
    NAMES.add(ors_cassette.path().name)

def test_names():
    assert len(NAMES) == 10
    assert NAMES >= {
        "test_sign_0.jsonl",
        "test_sign_k=-1.5.jsonl",
        "TestMore.test_sign-second.jsonl",
        "test_sign_alone.jsonl",
    }
"""


def test_each_test_has_a_cassette_of_its_own(tmp_path):
    (tmp_path / "test_signs.py").write_text(TEST_WITH_SIGNS)
    done = run_pytest(tmp_path)
    assert "11 passed" in done.stdout, done.stdout + done.stderr


TEST_THAT_DOES_NOT_END = """
import pytest, ors_gym

def ask(ors_cassette):
    with ors_gym.ORSClient(ors_cassette("mine:Hello")) as client:
        client.list_environments()

def test_that_skips(ors_cassette):
    ask(ors_cassette)
    pytest.skip("the rest is for another day")

def test_that_is_interrupted(ors_cassette):
    ask(ors_cassette)
    raise KeyboardInterrupt
"""


@pytest.mark.slow
def test_a_recording_that_was_broken_off_is_not_kept(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    (tmp_path / "test_agent.py").write_text(TEST_THAT_DOES_NOT_END)
    done = run_pytest(tmp_path)
    assert "1 skipped" in done.stdout, done.stdout + done.stderr
    assert "KeyboardInterrupt" in done.stdout
    folder = tmp_path / "cassettes"
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the variables of a Python for which the entry point is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["pytest11"].items()
    info = tmp_path / "installed" / "plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    return {"PYTHONPATH": os.pathsep.join([str(info.parent), str(ROOT)])}


TEST_OF_SOMEBODY_ELSE = """
import sys

def test_nothing_of_ours_is_imported(request):
    assert request.config.pluginmanager.has_plugin("ors_gym.testing.plugin")
    assert sorted(sys.modules.keys() & {"ors_gym", "gymnasium", "numpy", "httpx"}) == []
"""


@pytest.mark.slow
def test_other_test_suites_do_not_pay_for_it(environment, tmp_path):
    (tmp_path / "test_other.py").write_text(TEST_OF_SOMEBODY_ELSE)
    command = (sys.executable, "-m", "pytest", "-W", "error", tmp_path)
    done = run(*command, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("also", ["-p", "conftest.py"])
def test_it_is_loaded_once_however_often_it_is_named(environment, tmp_path, also):
    name = "ors_gym.testing.plugin"
    if also == "conftest.py":
        (tmp_path / "conftest.py").write_text(f"pytest_plugins = [{name!r}]")
    command = (sys.executable, "-m", "pytest", "-W", "error", "--ors-record=none")
    named = ("-p", name) if also == "-p" else ()
    done = run(*command, *named, tmp_path, cwd=tmp_path, environment=environment)
    assert done.returncode == 5, done.stdout + done.stderr
