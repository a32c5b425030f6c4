"""The recipe for NeMo Gym on its own resources server, agent and HTTP.

Agent and resources server are NeMo Gym's, on addresses of this machine. The model
server says prepared turns.
"""

import asyncio
import contextlib
import json
import socket
import types
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import pytest
import uvicorn
from fastapi import FastAPI
from nemo_gym import server_utils
from nemo_gym.base_resources_server import BaseResourcesServerConfig
from omegaconf import OmegaConf
from responses_api_agents.gymnasium_agent.app import (
    GymnasiumAgent,
    GymnasiumAgentConfig,
)

from tests.support.proxy.faults import Answer

GROUP = "nemo_gym"
Call: TypeAlias = tuple[str, dict[str, Any]]
ADD: Call = ("add", {"a": 1, "b": 2})
COUNT: Call = ("count", {})
SUBMIT: Call = ("submit", {"answer": "0"})


class Model:
    """A model server that says one turn after another."""

    def __init__(self, turns: Sequence[Sequence[Call]]) -> None:
        self._turns = turns
        self.asked: list[list[dict[str, Any]]] = []
        self.before: Any = None
        self.app = FastAPI()
        self.app.post("/v1/responses")(self.answer)

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        turn = len(self.asked)
        self.asked.append(body["input"])
        if self.before is not None:
            await asyncio.to_thread(self.before, turn)
        text = {"type": "output_text", "text": f"Turn {turn}.", "annotations": []}
        said = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
        calls = [
            {
                "type": "function_call",
                "call_id": f"call{turn}{place}",
                "name": name,
                "arguments": json.dumps(arguments),
            }
            for place, (name, arguments) in enumerate(self._turns[turn])
        ]
        output = [{**said, "status": "completed"}, *calls]
        response = {"id": "r", "created_at": 0, "model": "m", "object": "response"}
        choice = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return {**response, **choice, "output": output}


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        work = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            await work


@pytest.fixture
def run(documented: Any) -> Any:
    recipe = types.ModuleType("recipe_nemo_gym")
    exec(documented("recipe_nemo_gym.py, run with NeMo Gym 0.7.0"), vars(recipe))

    def play(model: Model, max_steps: int = 10) -> tuple[int, Any, Any]:
        """Return the agent's status and answer, and the resources server."""
        return asyncio.run(work(recipe, model, max_steps))

    return play


async def work(recipe: Any, model: Model, max_steps: int) -> tuple[int, Any, Any]:
    addresses = OmegaConf.create({})
    head = server_utils.BaseServerConfig(host="127.0.0.1", port=1)
    client = server_utils.ServerClient(
        head_server_config=head, global_config_dict=addresses
    )
    where = {"host": "127.0.0.1", "port": 1, "entrypoint": "app.py"}
    resources = recipe.ORSServer(
        config=BaseResourcesServerConfig(**where, name="ors"), server_client=client
    )
    agent = GymnasiumAgent(
        config=GymnasiumAgentConfig(
            **where,
            name="agent",
            resources_server={"type": "resources_servers", "name": "ors"},
            model_server={"type": "responses_api_models", "name": "model"},
            max_steps=max_steps,
        ),
        server_client=client,
    )
    session = server_utils.set_global_aiohttp_client(
        server_utils.GlobalAIOHTTPAsyncClientConfig()
    )
    try:
        async with (
            serving(resources.setup_webserver()) as ors,
            serving(model.app) as models,
            serving(agent.setup_webserver()) as agents,
        ):
            for name, kind, port in (
                ("ors", "resources_servers", ors),
                ("model", "responses_api_models", models),
            ):
                addresses[name] = {kind: {name: {"host": "127.0.0.1", "port": port}}}
            row = {"env_name": "Contract", "task_index": 0}
            given = {**row, "responses_create_params": {"input": []}}
            url = f"http://127.0.0.1:{agents}/run"
            async with session.post(url, json=given) as response:
                answer = await response.json() if response.ok else None
                return response.status, answer, resources
    finally:
        await session.close()
        server_utils._GLOBAL_AIOHTTP_CLIENT = None


def test_the_agent_plays_an_episode_to_its_reward(run, tidy_server, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", tidy_server.base_url)
    model = Model([[ADD, COUNT], [], [SUBMIT]])
    status, answer, resources = run(model)
    assert status == 200
    assert (answer["reward"], answer["terminated"]) == (2.5, True)
    opening, after_calls, after_text = model.asked
    assert opening[-1]["content"] == "0 + 0 = ?"
    told = [
        (one.get("call_id"), one["output"]) for one in after_calls if "output" in one
    ]
    assert told == [("call00", "3"), ("call01", "1")]
    assert "Invalid action" in after_text[-1]["content"]
    assert not resources.session_state


@pytest.mark.parametrize("then", [{}, {"then": "forever"}], ids=["once", "always"])
def test_an_outage_is_repaired_or_an_error_of_the_agent(run, proxy, monkeypatch, then):
    monkeypatch.setenv("ORS_BASE_URL", proxy.url)

    def break_calls(turn: int) -> None:
        if turn == 1:
            proxy.plan("/call", [Answer(404)], **then)

    model = Model([[COUNT], [COUNT], [SUBMIT]])
    model.before = break_calls
    status, answer, resources = run(model)
    assert not resources.session_state
    if then:
        assert (status, answer) == (500, None)
    else:
        assert (status, answer["reward"]) == (200, 3.0)
        assert len(model.asked) == 3
