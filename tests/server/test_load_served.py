"""Environments of a notebook cell, a script or a module, served by ``serve``."""

from __future__ import annotations

import functools
import re
import sys
import typing
from pathlib import Path
from typing import Any

import ors
import pytest
from pydantic import BaseModel

from ors_gym import errors
from ors_gym.client import ORSClient
from ors_gym.server import serve
from ors_gym.server._embedded import describe_server, embedded_base_url
from ors_gym.server._load_served import describe_environment
from tests.server.played_episodes import text_of
from tests.server.processes import run_script
from tests.support.slow_cases import mostly_slow

# No `if __name__ == "__main__"`, annotations that are strings, a cached class method, a
# helper and a toolset: what a cell or a script has.
SCRIPT = '''
from __future__ import annotations
import functools
import ors
from pydantic import BaseModel
from ors_gym.client import ORSClient
from ors_gym.server import serve

OFFSET = 1

def helper(number): return number + OFFSET

class Deep(BaseModel):
    number: int

class Input(BaseModel):
    deep: Deep

class Extra(ors.Toolset):
    @ors.tool
    async def extra(self, params: Input) -> ors.ToolOutput:
        """More."""
        return ors.ToolOutput(blocks=[])

class Base(ors.Environment):
    @classmethod
    @functools.cache
    def list_splits(cls): return ["train"]
    @classmethod
    def list_tasks(cls, split: str): return [{"id": 1}]
    def get_prompt(self): return [ors.TextBlock(text="prompt")]

class Mine(Base):
    toolsets = [Extra]
    @ors.tool
    def add(self, params: Input) -> ors.ToolOutput:
        """Add."""
        text = str(helper(params.deep.number))
        return ors.ToolOutput(blocks=[ors.TextBlock(text=text)], reward=0.5)

with serve(Mine) as base_url, ORSClient(base_url) as client:
    print(client.list_environments(), client.list_splits("mine"))
    with client.session("mine", split="train", index=0) as session:
        print(sorted(tool["name"] for tool in session.list_tools()))
        result = session.call_tool("add", {"deep": {"number": 4}})
        print(result["blocks"][0]["text"], result["reward"])
assert Mine.add.__annotations__ == {"params": "Input", "return": "ors.ToolOutput"}
'''
EXPECTED = [
    "['mine'] [{'name': 'train', 'type': 'train'}]",
    "['add', 'extra']",
    "5 0.5",
]

MODULE = '''
import ors
class Other(ors.Environment):
    @classmethod
    def list_splits(cls): return ["train"]
    @classmethod
    def list_tasks(cls, split): return [{}]
    def get_prompt(self): return []
class Plain(Other):
    @ors.tool
    def fail(self) -> ors.ToolOutput:
        """Fail."""
        return 1 / 0
class NotAnEnvironment: pass
'''


def refusal_of(*environments: Any) -> str:
    with pytest.raises(errors.InvalidRequestError) as caught, serve(*environments):
        raise AssertionError
    return str(caught.value)


def served_names(*environments: Any) -> list[str]:
    with serve(*environments) as base_url, ORSClient(base_url) as client:
        return client.list_environments()


@pytest.mark.slow
@pytest.mark.parametrize("stdin", mostly_slow([False, True]))
def test_a_class_of_a_script_without_a_guard(*, stdin: bool):
    finished = run_script(SCRIPT, stdin=stdin)
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == EXPECTED


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that only this process's path leads to."""
    name = f"own_environments_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_class_by_its_name_or_of_a_module_on_the_path(module: str):
    assert served_names(f"{module}:Plain") == ["plain"]
    assert served_names(__import__(module).Plain) == ["plain"]


class Local(BaseModel):
    word: str


class OfThisTest(ors.Environment):
    """A class of a module that no other process can import."""

    @classmethod
    @functools.cache
    def list_splits(cls):
        return ["train"]

    @classmethod
    def list_tasks(cls, split: str):
        return [{}]

    def get_prompt(self):
        return []

    if typing.TYPE_CHECKING:

        def only_for_type_checkers(self) -> Nowhere:  # type: ignore[name-defined] # noqa: F821
            """Cannot be resolved."""

    @ors.tool
    def say(self, params: Local) -> ors.ToolOutput:
        """Say a word."""
        return ors.ToolOutput(blocks=[ors.TextBlock(text=params.word)])


def test_a_class_of_a_test_module():
    with (
        serve(OfThisTest) as base_url,
        ORSClient(base_url) as client,
        client.session("OfThisTest", split="train", index=0) as session,
    ):
        result = session.call_tool("say", {"word": "yes"})
    assert text_of(result["blocks"]) == "yes"


@pytest.mark.slow
def test_a_class_that_is_local_to_a_function():
    class Inner(OfThisTest):
        pass

    assert served_names(Inner, OfThisTest) == ["inner", "ofthistest"]


SERVE_AND_SAY_SO = """
    with serve() as url:
        print("served")
"""


@pytest.mark.slow
def test_a_directory_with_modules_named_like_the_standard_ones(tmp_path: Path):
    for name in ("json", "random", "socket", "ors", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('shadowed')")
    script = """
    import sys
    sys.path.remove("")
    from ors_gym.server import serve
    """
    finished = run_script(script + SERVE_AND_SAY_SO, cwd=tmp_path)
    assert (finished.stdout, finished.stderr) == ("served\n", "")


@pytest.mark.slow
def test_a_working_directory_that_is_gone(tmp_path: Path):
    script = f"""
    import os, shutil
    from ors_gym.server import serve
    os.chdir({str(tmp_path)!r})
    shutil.rmtree({str(tmp_path)!r})
    """
    finished = run_script(script + SERVE_AND_SAY_SO)
    assert (finished.stdout, finished.stderr) == ("served\n", "")
    assert not tmp_path.exists()


@pytest.mark.slow
def test_tracebacks_and_prints_are_shown_once_and_nothing_else_is():
    script = (
        SCRIPT.partition("with serve")[0]
        + '''
from ors_gym.errors import ORSError
from ors_gym.server import PlayerMistakeError

class Loud(Base):
    def setup(self):
        print("set up")
        if self.task_spec.get("fail"): raise LookupError("no set-up")
    @ors.tool
    def divide(self) -> ors.ToolOutput:
        """Divide by nought."""
        return 1 / 0
    @ors.tool
    def blunder(self) -> ors.ToolOutput:
        """Blame the player."""
        raise PlayerMistakeError("yours")

with serve(Loud) as base_url, ORSClient(base_url) as client:
    with client.session("loud", {"id": 1}) as session:
        for tool in ("divide", "blunder", "missing"):
            try:
                session.call_tool(tool, {})
            except ORSError as error:
                print(type(error).__name__)
    try:
        with client.session("loud", {"fail": True}) as session:
            session.get_prompt()
    except ORSError as error:
        print(type(error).__name__)
'''
    )
    finished = run_script(script)
    failed = ["ToolFailedError"] * 2
    assert finished.stdout.split() == [*failed, "ToolRejectedError", "SetupFailedError"]
    assert finished.stderr.count("ZeroDivisionError: division by zero") == 1
    assert finished.stderr.count("LookupError: no set-up") == 1
    assert finished.stderr.count("Traceback (most recent call last)") == 2
    assert finished.stderr.count("set up\n") == 2
    assert "in divide" in finished.stderr
    assert "PlayerMistakeError" not in finished.stderr


@pytest.mark.slow
def test_the_log_of_the_sdk_is_shown_to_who_asks_for_it():
    finished = run_script(SCRIPT, variables={"ORS_LOG_LEVEL": "INFO"})
    assert finished.stdout.splitlines() == EXPECTED
    assert "tool_call_completed" in finished.stderr


def test_a_tool_that_raises_leaves_its_session(module: str):
    with (
        serve(f"{module}:Plain") as base_url,
        ORSClient(base_url) as client,
        client.session("plain", split="train", index=0) as session,
    ):
        for _ in range(2):
            with pytest.raises(errors.ToolFailedError, match="division by zero"):
                session.call_tool("fail", {})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_module:Class", "ModuleNotFoundError: No module named 'no_module'"),
        ("{module}:Other", "has no tools defined"),
    ],
)
def test_an_environment_that_cannot_be_served_is_an_error_with_its_traceback(
    module: str, reference: str, message: str
):
    said = refusal_of(reference.format(module=module))
    assert message in said
    assert "Traceback (most recent call last)" in said


def test_another_class_is_refused_without_a_traceback(module: str):
    said = refusal_of(f"{module}:NotAnEnvironment")
    assert said.endswith(
        "NotAnEnvironment'> is not a subclass of ors.Environment, nor of gymnasium.Env"
    )
    assert "Traceback" not in said


def test_a_class_that_is_not_there_is_an_error_that_names_those_that_are(module: str):
    said = refusal_of(f"{module}:NoSuchClass")
    assert f"module '{module}' has no class 'NoSuchClass'; it has Other, " in said
    assert "Traceback" not in said


def test_the_same_name_twice_is_an_error(module: str):
    assert "duplicate env plain" in refusal_of(f"{module}:Plain", f"{module}:Plain")


@pytest.mark.parametrize(
    "bad", ["", "module", "module:", ":Class", "m:a b", 3, object()]
)
def test_what_is_no_environment_is_refused_before_a_process_starts(bad: object):
    assert re.search(r"module:(My|Class)", refusal_of(bad))


def test_a_class_that_cannot_be_sent_says_what_to_do():
    class Held(OfThisTest):
        frame = sys._getframe()

    assert 'pass "module:Class"' in refusal_of(Held)
    assert "the class, not an instance" in refusal_of(OfThisTest(task_spec={}))


@pytest.mark.slow
def test_a_module_may_print_and_read_and_end_the_process(module, tmp_path, capfd):
    source = "import os, sys; print('read', repr(sys.stdin.read()), flush=True)\n"
    (tmp_path / "reads.py").write_text(source + MODULE)
    assert served_names("reads:Plain") == ["plain"]
    (tmp_path / "ends.py").write_text("import os; os._exit(3)")
    with pytest.raises(errors.ConnectionFailedError, match="exit status 3 before"):
        served_names("ends:Plain")
    (tmp_path / "leaves.py").write_text("raise SystemExit('left')")
    assert "SystemExit: left" in refusal_of("leaves:Plain")
    assert capfd.readouterr().err == "read ''\n"


@pytest.mark.parametrize("missing", ["ors", "uvicorn", "PIL"])
def test_a_missing_extra_names_its_command(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    command = r'pip install "ors-gym\[server\]"'
    with pytest.raises(errors.MissingExtraError, match=command):
        served_names()
    monkeypatch.setattr("ors_gym.server._embedded._embedded.process", None)
    monkeypatch.delenv("ORS_GYM_EMBEDDED_URL", raising=False)
    with pytest.raises(errors.MissingExtraError, match="ORS_BASE_URL"):
        embedded_base_url()


@pytest.mark.slow
def test_a_server_says_what_to_start_for_another_like_it():
    bundled = "ors_gym.server.environments.guess:Guess"
    with serve(bundled) as url:
        assert describe_server(url) == [bundled]
    assert describe_server(url) is None
    assert describe_server(embedded_base_url()) == "bundled"

    class Local(OfThisTest):
        pass

    # A class goes by value, and has a name if another process can import it.
    assert (
        describe_environment(ors.Environment)["name"] == "ors.environment:Environment"
    )
    assert "name" not in describe_environment(Local)
