"""Samples are accepted by jsonschema and by a real server that uses pydantic."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest

from ors_gym.client import ORSClient, Session
from ors_gym.errors import ToolRejectedError
from ors_gym.server import serve
from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces.json_schema import CompiledSchema
from tests.spaces.pydantic_tools import MODELS
from tests.spaces.tool_server import SpacesEnv

SAMPLES = 1000


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with (
        serve(SpacesEnv) as base_url,
        ORSClient(base_url) as client,
        client.session("SpacesEnv", {}) as session,
    ):
        yield session


def refused_of(session: Session, tool: str, inputs: list[Any]) -> list[Any]:
    result = session.call_tool("run_many", {"tool": tool, "inputs": inputs})
    refused: list[Any] = json.loads(result["blocks"][0]["text"])
    return refused


def test_there_are_thirty_models() -> None:
    assert len(MODELS) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_samples_are_accepted(name: str, session: Session) -> None:
    tools: dict[str, Any] = {tool["name"]: tool for tool in session.list_tools()}
    schema = tools[name]["input_schema"]
    compiled = CompiledSchema(schema, name)
    random = Random(name)
    samples = [compiled.draw(random) for _ in range(SAMPLES)]
    assert json.loads(json.dumps(samples)) == samples
    validator = jsonschema.Draft202012Validator(schema)
    assert [value for value in samples if not validator.is_valid(value)] == []
    assert refused_of(session, name, samples) == []


def test_the_space_of_a_real_server_gives_calls_it_accepts(session: Session) -> None:
    tools = [tool for tool in session.list_tools() if tool["name"] != "run_many"]
    assert len(tools) == len(MODELS) + 1
    space = ToolCallSpace(tools, seed=7)
    for _ in tools:
        call = space.sample()
        assert call in space
        session.call_tool(call["tool"], call["input"])


def test_a_refusal_would_be_seen(session: Session) -> None:
    assert len(refused_of(session, "plainstring", [{}, {"text": 1}])) == 2
    with pytest.raises(ToolRejectedError):
        session.call_tool("plainstring", {})
