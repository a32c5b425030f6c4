"""The output of an evaluation, which tests of several commands read."""

from pathlib import Path

import pytest

from tests.cli.running import evaluate
from tests.support.servers.process import RunningServer

POLICY = '''
def answer(episode):
    """Be right about two tasks of three."""
    right = 2 * episode.task_index
    return {"tool": "submit", "input": {"answer": str(right + right % 3 % 2)}}


def one(episode):
    return {"tool": "submit", "input": {"answer": "0"}}


def mute(episode):
    return "guess 8"


def forgetful(episode):
    answer(episode)


def broken(episode):
    raise RuntimeError("no idea")
'''


@pytest.fixture
def evaluated(server: RunningServer, tmp_path: Path) -> Path:
    """Give the output of an evaluation of six tasks, in a folder with policies."""
    (tmp_path / "players.py").write_text(POLICY)
    evaluate(server, tmp_path, "answer", "run.jsonl")
    return tmp_path / "run.jsonl"
