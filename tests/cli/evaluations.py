"""Evaluations of six tasks, made by the command line, that tests of commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import run
from tests.support.servers.process import RunningServer

__all__ = ["evaluate", "evaluated"]

POLICY = '''
def answer(episode):
    """Be right about two tasks of three."""
    right = 2 * episode.task_index
    return {"tool": "submit", "input": {"answer": str(right + right % 3 % 2)}}


def one(episode):
    return {"tool": "submit", "input": {"answer": "0"}}


def broken(episode):
    raise RuntimeError("no idea")
'''


@pytest.fixture
def evaluated(server: RunningServer, tmp_path: Path) -> Path:
    """Give the output of an evaluation of six tasks, in a folder with policies."""
    (tmp_path / "players.py").write_text(POLICY)
    evaluate(server, tmp_path, "answer", "run.jsonl")
    return tmp_path / "run.jsonl"


def evaluate(
    server: RunningServer, folder: Path, policy: str, output: str, code: int = 0
) -> dict[str, Any]:
    done = run(
        *("eval", "contract", "--url", server.base_url, "--tasks", "6"),
        *("--policy", f"players:{policy}", "--output", output, "--json"),
        cwd=folder,
        code=code,
    )
    value: dict[str, Any] = json.loads(done.stdout)
    return value
