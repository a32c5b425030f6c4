"""Run the command line, in this process or as a user does."""

import contextlib
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

from ors_gym.cli import main
from ors_gym.client.background._thread import background
from tests.support.processes import run as run_process
from tests.support.servers.process import RunningServer

Done: TypeAlias = subprocess.CompletedProcess[str]
COMMAND = (sys.executable, "-m", "ors_gym")

HELLO = '''
from ors import Environment, TextBlock, ToolOutput, tool


class Hello(Environment):
    @classmethod
    def list_splits(cls):
        return ["train"]

    @classmethod
    def list_tasks(cls, split):
        return [{"id": "0"}]

    def get_prompt(self):
        return [TextBlock(text="Say hello.")]

    @tool
    def hello(self) -> ToolOutput:
        """Say hello."""
        return ToolOutput(blocks=[TextBlock(text="Hello!")], reward=1.0, finished=True)


def greet(episode):
    return {"tool": "hello", "input": {}}
'''


def run(
    *arguments: str,
    code: int = 0,
    cwd: Path | None = None,
    typed: str = "",
    fresh: bool = False,
) -> Done:
    # A fresh process takes much longer to start than most commands do.
    if fresh:
        command, folder = [*COMMAND, *arguments], cwd or Path()
        done = run_process(*command, given=typed, seconds=100, cwd=folder)
    else:
        done = _run_here(arguments, cwd, typed)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def _run_here(arguments: Sequence[str], cwd: Path | None, typed: str) -> Done:
    modules = set(sys.modules)
    with (
        contextlib.redirect_stdout(io.StringIO()) as said,
        contextlib.redirect_stderr(io.StringIO()) as complained,
        patch.object(sys, "stdin", io.StringIO(typed)),
        patch.object(sys, "path", ["", *sys.path]),
        contextlib.chdir(cwd or "."),
    ):
        importlib.invalidate_caches()
        code = main(arguments)
        # As at the end of a process.
        background().delete_all()
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if cwd is not None and str(file).startswith(str(cwd)):
            del sys.modules[name]
    output = said.getvalue(), complained.getvalue()
    return subprocess.CompletedProcess(arguments, code, *output)


def evaluate(
    server: RunningServer, folder: Path, policy: str, output: str, code: int = 0
) -> dict[str, Any]:
    done = run(
        *("eval", "contract", "--url", server.base_url, "--tasks", "6"),
        *("--policy", f"players:{policy}", "--output", output, "--json"),
        cwd=folder,
        code=code,
    )
    return dict(json.loads(done.stdout))
