"""Run the command line as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["HELLO", "run"]

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
) -> subprocess.CompletedProcess[str]:
    """Run a command, and check how it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "ors_gym", *arguments],
        capture_output=True,
        text=True,
        input=typed,
        timeout=100,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done
