"""Samples are accepted by jsonschema and by a real server that uses pydantic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from jsonschema import (  # type: ignore[import-untyped, unused-ignore]
    Draft202012Validator,
)

from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces.json_schema import CompiledSchema
from tests.spaces.pydantic_tools import MODELS

SAMPLES = 1000
SINGLE_CALLS = 1


class RealServer:
    """A session with the environment of `tool_server`."""

    def __init__(self, port: int) -> None:
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        )
        with self.client.stream("POST", "/create_session") as reply:
            lines = list(reply.iter_lines())
        sid = next(line for line in lines if line.startswith("data: "))[6:]
        self.client.headers["X-Session-ID"] = sid
        body = {"env_name": "SpacesEnv", "task_spec": {}}
        self.client.post("/create", json=body).raise_for_status()
        reply = self.client.get("/SpacesEnv/tools").raise_for_status()
        self.tools = reply.json()["tools"]

    def call(self, name: str, value: Any) -> Any:
        body = {"name": name, "input": value}
        with self.client.stream("POST", "/SpacesEnv/call", json=body) as reply:
            text = reply.read().decode()
        events = [event for event in text.split("\r\n\r\n") if "data: " in event]
        chunks = [e.partition("data: ")[2] for e in events if "event: task_id" not in e]
        return json.loads("".join(chunks))


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.spaces.tool_server"],
        cwd=root,
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            line = process.stdout.readline()
            assert line, "the server did not start"
            real = RealServer(int(line))
            yield real
            real.client.close()
        finally:
            process.stdin.close()
            process.wait(10)


def test_there_are_thirty_models() -> None:
    assert len(MODELS) >= 30


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_accepted(name: str, server: RealServer) -> None:
    schema = next(t["input_schema"] for t in server.tools if t["name"] == name)
    compiled = CompiledSchema(schema, name)
    random = Random(name)
    samples = [compiled.draw(random) for _ in range(SAMPLES)]
    assert json.loads(json.dumps(samples)) == samples
    validator = Draft202012Validator(schema)
    assert [value for value in samples if not validator.is_valid(value)] == []
    result = server.call("run_many", {"tool": name, "inputs": samples})
    assert result["ok"]
    assert json.loads(result["output"]["blocks"][0]["text"]) == []


def test_the_space_of_a_real_server_gives_calls_it_accepts(server: RealServer) -> None:
    tools = [tool for tool in server.tools if tool["name"] != "run_many"]
    assert len(tools) == len(MODELS) + 1
    space = ToolCallSpace(tools, seed=7)
    for _ in range(SINGLE_CALLS * len(tools)):
        call = space.sample()
        assert call in space
        assert server.call(call["tool"], call["input"])["ok"], call


def test_a_refusal_would_be_seen(server: RealServer) -> None:
    result = server.call(
        "run_many", {"tool": "plainstring", "inputs": [{}, {"text": 1}]}
    )
    assert len(json.loads(result["output"]["blocks"][0]["text"])) == 2
    assert not server.call("plainstring", {})["ok"]
