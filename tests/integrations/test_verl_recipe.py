"""The recipe for verl on verl's own agent loop, with a scripted engine.

verl makes the loop as its workers do, and turns what comes back into tensors.
"""

import asyncio
import sys
import types
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop import agent_loop
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from ors_gym.errors import IncompleteGroupError
from tests.integrations.chat_tokenizers import SMOLLM2, train_tokenizer
from tests.support.hermes_calls import write
from tests.support.servers.process import start_server

GROUP = "verl"
SDK = "ors-sdk-0.1.0"
TASK = {"env_name": "Contract", "task_index": 0}


TEXTS = [write("add", a=1, b=2), "What now?", write("submit", answer="0")]


class Engine:
    """Says the texts in their order, as many as turns stand in the conversation."""

    def __init__(self) -> None:
        self.tokenizer = train_tokenizer(SMOLLM2)
        self.seen: list[list[int]] = []
        self.restart: Any = None

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: Any
    ) -> TokenOutput:
        if self.restart is not None:
            self.restart()
        assert sampling_params["temperature"] == 1.0
        assert sampling_params["max_tokens"] > 0
        self.seen.append(prompt_ids)
        turn = self.tokenizer.decode(prompt_ids).count("<|im_start|>assistant") - 1
        ids = self.tokenizer.encode(TEXTS[turn] + "<|im_end|>")
        assert ids[-1] in sampling_params["stop_token_ids"]
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def run(documented: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    shared = types.ModuleType("ors_recipe")
    exec(documented("ors_recipe.py"), vars(shared))
    monkeypatch.setitem(sys.modules, "ors_recipe", shared)
    recipe = types.ModuleType("recipe_verl")
    exec(documented("recipe_verl.py, run with verl 0.9.1"), vars(recipe))
    known = agent_loop._agent_loop_registry["ors_agent"]
    assert known == {"_target_": "recipe_verl.ORSAgentLoop"}

    def play(response_length: int = 4096) -> agent_loop.AgentLoopOutput:
        sizes = {"prompt_length": 4096, "response_length": response_length}
        config = OmegaConf.create({"actor_rollout_ref": {"rollout": sizes}})

        async def work() -> Any:
            loop = recipe.ORSAgentLoop(
                trainer_config=agent_loop.DictConfigWrap(config),
                server_manager=engine,
                tokenizer=engine.tokenizer,
                processor=None,
                dataset_cls=RLHFDataset,
                data_config=agent_loop.DictConfigWrap(OmegaConf.create({})),
            )
            return await loop.run({"temperature": 1.0}, extra_info=dict(TASK))

        return asyncio.run(work())

    return play


def test_verl_gets_what_was_sampled_and_paid(run, engine, tidy_server, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", tidy_server.base_url)
    output = run()
    assert output.extra_fields == {"turn_scores": [0.5, 0.0, 1.0], "tool_rewards": []}
    ids = output.prompt_ids + output.response_ids
    own = zip(output.response_ids, output.response_mask, strict=True)
    said = engine.tokenizer.decode([number for number, mask in own if mask])
    assert said == "".join(f"{text}<|im_end|>" for text in TEXTS)
    for seen in engine.seen:
        assert ids[: len(seen)] == seen
    tensors = output.as_dict()
    assert tensors["rm_scores"].sum() == tensors["rm_scores"][-1] == 1.5
    expected = -0.5 * torch.tensor(output.response_mask)
    assert torch.equal(tensors["rollout_log_probs"], expected)
    assert output.num_turns == 7


def test_a_response_is_no_longer_than_verl_allows(run, tidy_server, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", tidy_server.base_url)
    output = run(response_length=150)
    assert 0 < len(output.response_ids) <= 150
    assert output.reward_score == 1.5


@pytest.mark.parametrize("times", [1, 9])
def test_an_outage_is_repaired_or_raised(run, engine, monkeypatch, times):
    with start_server(SDK) as server:
        monkeypatch.setenv("ORS_BASE_URL", server.base_url)
        left = [None] * times

        def restart() -> None:
            if left and engine.seen:
                left.pop()
                server.restart()
                server.mark()

        engine.restart = restart
        if times == 1:
            assert run().reward_score == 1.5
            assert len(engine.seen) == 2 * len(TEXTS)
        else:
            with pytest.raises(IncompleteGroupError, match="3 attempts"):
                run()
        assert server.open_sessions() == set()
