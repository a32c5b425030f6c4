"""The conformance suite and the inspector of the MCP project find nothing wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import ors_gym.server
from ors_gym.mcp import _episode_server, serve
from tests.cli.running import COMMAND
from tests.support.npm import ensure_packages
from tests.support.processes import run
from tests.support.virtual_environments import ROOT, VenvBuildError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# The newest conformance suite that runs on Node 20, and the inspector.
_CONFORMANCE: Final = "@modelcontextprotocol/conformance@0.1.13"
_INSPECTOR: Final = "@modelcontextprotocol/inspector@2.12.0"
NOT_OFFERED: Final = """
server:
  # What ORS has nothing of: logs, completion, sound, embedded resources, questions.
  - logging-set-level
  - completion-complete
  - tools-call-audio
  - tools-call-embedded-resource
  - tools-call-mixed-content
  - tools-call-with-logging
  - tools-call-sampling
  - tools-call-elicitation
  - elicitation-sep1034-defaults
  - elicitation-sep1330-enums
  # A prompt and a resource that have the names of the suite.
  - resources-read-text
  - resources-read-binary
  - resources-templates-read
  - resources-subscribe
  - resources-unsubscribe
  - prompts-get-simple
  - prompts-get-with-args
  - prompts-get-embedded-resource
  - prompts-get-with-image
  # A server that closes connections by itself.
  - server-sse-polling
"""


def find(program: str, package: str) -> Path:
    try:
        return ensure_packages("mcp-project", [package]) / program
    except VenvBuildError as error:
        pytest.skip(f"not run: {error}")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve an environment with the tools that the suite asks for."""
    monkeypatch.setattr(_episode_server, "_PROGRESS_EVERY", 0.05)
    with (
        ors_gym.server.serve("tests.mcp.everything:Everything") as base_url,
        serve("Everything", base_url) as address,
    ):
        yield address


def test_the_conformance_suite_finds_nothing_wrong(address: str, tmp_path: Path):
    expected = tmp_path / "expected.yml"
    expected.write_text(NOT_OFFERED)
    conformance = find("conformance", _CONFORMANCE)
    arguments = ("server", "--suite", "all", "--url", address)
    done = run(
        *(conformance, *arguments, "--expected-failures", expected),
        seconds=200,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("✓")]
    assert len(passed) == 12, done.stdout[-3000:]


def inspect(*arguments: str) -> Any:
    inspector = find("mcp-inspector", _INSPECTOR)
    done = run(inspector, "--cli", *arguments, seconds=100, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_inspector_reads_what_is_served(address: str, transport: str):
    target: tuple[str, ...] = (address, "--transport", "http")
    if transport == "stdio":
        target = (*COMMAND, "mcp", "tests.mcp.everything:Everything")
    tools = inspect(*target, "--method", "tools/list")["tools"]
    assert "test_simple_text" in [tool["name"] for tool in tools]
    called = ("--method", "tools/call", "--tool-name", "test_simple_text")
    result = inspect(*target, *called)
    assert result["content"][0]["text"].startswith("This is a simple text")
    named = ("--method", "prompts/get", "--prompt-name", "task")
    [message] = inspect(*target, *named)["messages"]
    assert message["content"]["text"] == "Call what you are asked to."
    read = ("--method", "resources/read", "--uri", "ors://prompt")
    [content] = inspect(*target, *read)["contents"]
    assert content["text"] == "Call what you are asked to."
