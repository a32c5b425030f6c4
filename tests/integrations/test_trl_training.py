"""TRL's own GRPOTrainer through the integration, over HTTP, with a tiny model."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from ors_gym.integrations.trl import (
    TRLEnvironment,
    combine_environments,
    trl_environment,
)
from tests.integrations.tiny_model import call_text, make_model, make_tokenizer
from tests.support.proxy.faults import Point, Reset
from tests.support.servers.process import RunningServer, start_server

GROUP = "training"
GENERATIONS = 4
ADD = call_text("add", {"a": 1, "b": 2})
RIGHT = call_text("submit", {"answer": "2"})
WRONG = call_text("submit", {"answer": "3"})


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Recording(GRPOTrainer):  # type: ignore[misc, unused-ignore]
    """A trainer that keeps what goes into the loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[dict[str, Any]] = []
        self.before_resets: Callable[[int], None] = lambda _: None
        self.before_calls: Callable[[int], None] = lambda _: None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.before_resets(len(self.batches))
        batch = super()._generate_and_score_completions(inputs)
        (rewards,) = self._logs["rewards"].values()
        last = slice(-len(inputs), None)
        self.batches.append(
            {
                "advantages": batch["advantages"].tolist(),
                "rewards": list(rewards)[last],
                "completions": list(self._logs["completion"])[last],
                "prompts": list(self._logs["prompt"])[last],
            }
        )
        return batch

    def _tool_call_loop(self, *args: Any) -> Any:
        self.before_calls(len(self.batches))
        return super()._tool_call_loop(*args)


def make(
    made: TRLEnvironment, calls: Sequence[str], directory: Path, steps: int
) -> Recording:
    tokenizer = make_tokenizer(calls, map(str, range(10)))
    prompts = 2
    config = GRPOConfig(
        output_dir=str(directory),
        per_device_train_batch_size=prompts * GENERATIONS,
        num_generations=GENERATIONS,
        learning_rate=1e-3,
        beta=0.0,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        seed=3,
        max_completion_length=16,
        max_tool_calling_iterations=3,
    )
    return Recording(
        model=make_model(tokenizer, seed=3),
        args=config,
        processing_class=tokenizer,
        **made._asdict(),
    )


def parameters_of(trainer: Any) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in trainer.model.parameters()])


def test_ten_steps(one_server, tmp_path):
    made = trl_environment(
        "Contract", one_server.base_url, tasks=range(2), num_generations=GENERATIONS
    )
    one_server.mark()
    trainer = make(made, [ADD, RIGHT, WRONG], tmp_path, steps=10)
    before = parameters_of(trainer)
    trainer.train()
    assert len(trainer.batches) == 10
    rewards = [reward for batch in trainer.batches for reward in batch["rewards"]]
    assert len(rewards) == 10 * 2 * GENERATIONS
    # What the trainer scored is what the server paid, to the last call.
    paid = [reward for reward in one_server.rewards() if reward]
    assert sum(rewards) == pytest.approx(sum(paid))
    assert one_server.runs() > 40
    log = trainer.state.log_history[0]
    assert log["tools/failure_frequency"] == 0
    assert log["Contract/outages"] == 0
    assert 0 < log["Contract/finished"] <= 1
    assert "rewards/Contract_reward/mean" in log
    assert not torch.equal(before, parameters_of(trainer))
    # Every session was closed, and every rollout had one of its own.
    assert len({entry["session"] for entry in one_server.log("ready")}) == len(rewards)
    one_server.wait_for("teardown", len(rewards))


def test_each_generation_of_a_group_plays_the_same_task(one_server, tmp_path):
    made = trl_environment("Contract", one_server.base_url, tasks=range(2))
    trainer = make(made, [ADD, RIGHT], tmp_path, steps=1)
    trainer.train()
    (batch,) = trainer.batches
    shown = [prompt[-1]["content"] for prompt in batch["prompts"]]
    first, second = shown[:GENERATIONS], shown[GENERATIONS:]
    assert len(set(first)) == len(set(second)) == 1
    assert {first[0], second[0]} == {"0 + 0 = ?", "1 + 1 = ?"}


def test_two_environments_in_one_run(one_server, tmp_path):
    url = one_server.base_url
    made = combine_environments(
        trl_environment("Contract", url, tasks=[0]),
        trl_environment("TaskTools", url, tasks=[1]),
    )
    trainer = make(made, [ADD, call_text("extra", {"text": "1"})], tmp_path, steps=2)
    # Two reward columns here, so the recording of one does not fit.
    trainer._generate_and_score_completions = (  # type: ignore[method-assign]
        super(Recording, trainer)._generate_and_score_completions
    )
    one_server.mark()
    trainer.train()
    logs = trainer.state.log_history[0]
    played = {entry["environment"] for entry in one_server.log("ready")}
    assert played == {"Contract", "TaskTools"}
    assert {f"rewards/{name}_reward/mean" for name in played} <= logs.keys()
    assert not math.isnan(logs["reward"])
    tools = {
        name: {tool.__name__ for tool in tools}
        for name, tools in trainer._env_tools.items()
    }
    assert tools["TaskTools"] == {"after_setup", "extra", "submit"}
    assert "extra" not in tools["Contract"]


@pytest.mark.parametrize("combined", [False, True])
def test_a_prompt_with_roles_is_trained_on_with_them(newest, tmp_path, combined):
    url = newest.base_url
    made = trl_environment(
        "Interview", url, tasks=range(2), system_prompt="Mine.", num_generations=2
    )
    if combined:
        made = combine_environments(made)
    rows = made.train_dataset.to_list()
    newest.mark()
    # Twice over the rows: what a rollout was told does not stay in them.
    right = call_text("submit", {"answer": "0"})
    trainer = make(made, [right, WRONG], tmp_path, steps=2)
    trainer.train()
    assert made.train_dataset.to_list() == rows
    prompts = [prompt for batch in trainer.batches for prompt in batch["prompts"]]
    assert len(prompts) == 2 * 2 * GENERATIONS
    assert {prompt[-1]["content"] for prompt in prompts} == {"0 + 0 = ?", "1 + 1 = ?"}
    for system, *turns in prompts:
        assert system == {"role": "system", "content": "Mine.\n\nBe brief."}
        roles = [turn["role"] for turn in turns]
        assert roles == ["user", "assistant", "tool", "user"]
        said, result = turns[1:3]
        assert (said["content"], said["reasoning_content"]) == ("I try.", "Let me try.")
        (call,) = said["tool_calls"]
        assert call["function"] == {"name": "submit", "arguments": {"answer": "7"}}
        assert (result["name"], result["content"]) == ("submit", "wrong")
    rewards = [reward for batch in trainer.batches for reward in batch["rewards"]]
    assert sum(rewards) == sum(newest.rewards()) > 0
    # A session for each rollout; one that a group opened ahead was asked as well.
    sessions = {entry["session"] for entry in newest.log("prompt")}
    assert len(newest.log("prompt")) == len(sessions) == len(prompts)


def test_no_reward_of_an_outage_reaches_the_loss(proxy, tmp_path):
    made = trl_environment("Contract", proxy.url, tasks=range(2), attempts=1)
    trainer = make(made, [RIGHT, WRONG], tmp_path, steps=2)
    # Of the calls that come, every third is cut off before its reply.
    proxy.plan("/call", [None, None, Reset(Point.BEFORE_REPLY)] * 12)
    trainer.train()
    (first, second) = trainer.batches
    lost = 0
    for batch in (first, second):
        for start in (0, GENERATIONS):
            group = slice(start, start + GENERATIONS)
            rewards, advantages = batch["rewards"][group], batch["advantages"][group]
            scored = [reward for reward in rewards if not math.isnan(reward)]
            lost += GENERATIONS - len(scored)
            for reward, advantage in zip(rewards, advantages, strict=True):
                if math.isnan(reward):
                    assert advantage == 0.0
                elif len(scored) > 1:
                    # The baseline is that of the rollouts that have an outcome.
                    mean = sum(scored) / len(scored)
                    spread = torch.tensor(scored).std().item() + 1e-4
                    expected = (reward - mean) / spread
                    assert advantage == pytest.approx(expected, abs=1e-4)
    assert lost >= 2
    told = str([first["completions"], second["completions"]])
    for word in ("ambiguous", "connection", "reset", "lost", "error"):
        assert word not in told.lower()


def test_a_batch_of_outages_changes_no_weight(proxy, tmp_path):
    made = trl_environment("Contract", proxy.url, tasks=range(2))
    trainer = make(made, [RIGHT, WRONG], tmp_path, steps=1)
    proxy.plan("/call", [Reset(Point.BEFORE_REPLY)], then="forever")
    called = _only_calls(trainer)
    before = parameters_of(trainer)
    trainer.train()
    (batch,) = trainer.batches
    assert called
    assert all(map(math.isnan, batch["rewards"]))
    assert batch["advantages"] == [0.0] * len(batch["rewards"])
    assert torch.equal(before, parameters_of(trainer))


def _only_calls(trainer: Any) -> bool:
    """Let the model say nothing but tool calls."""
    tokenizer = trainer._tokenizer
    calls = [token for token in tokenizer.get_added_vocab() if "tool_call" in token]
    ids = tokenizer.convert_tokens_to_ids(calls)
    others = [number for number in range(len(tokenizer)) if number not in ids]
    trainer.generation_config.suppress_tokens = others
    return bool(ids)


class Outage:
    """Kills a server, and starts it again while the training waits for it."""

    def __init__(self, server: RunningServer, batch: int) -> None:
        self._server = server
        self._batch = batch
        self._threads: list[threading.Thread] = []

    def __call__(self, batch: int) -> None:
        if batch == self._batch:
            self._server.kill()
            self._threads.append(threading.Thread(target=self._server.start))
            self._threads[-1].start()

    def join(self) -> int:
        for thread in self._threads:
            thread.join()
        return len(self._threads)


@pytest.mark.slow
@pytest.mark.parametrize("attempts", [1, 3])
def test_the_training_survives_the_death_of_the_server(tmp_path, attempts):
    with start_server("ors-sdk-0.1.0", environments=["Contract"]) as server:
        made = trl_environment(
            "Contract",
            server.base_url,
            tasks=range(2),
            num_generations=GENERATIONS,
            attempts=attempts,
        )
        trainer = make(made, [ADD, RIGHT, WRONG], tmp_path, steps=12)
        _only_calls(trainer)
        server.mark()
        # Once while every session is open, and once before any is.
        trainer.before_calls = first = Outage(server, batch=4)
        trainer.before_resets = second = Outage(server, batch=8)
        trainer.train()
        assert first.join() == second.join() == 1
        assert len(trainer.batches) == 12
        lost = [[math.isnan(r) for r in batch["rewards"]] for batch in trainer.batches]
        whole = [False] * 2 * GENERATIONS
        scored = [r for batch in trainer.batches for r in batch["rewards"]]
        # Everything that was scored was paid by a server, to the last call.
        paid = sum(reward for reward in server.rewards() if reward)
        assert paid == pytest.approx(sum(r for r in scored if not math.isnan(r)))
        if attempts > 1:
            assert lost == [whole] * 12
            return
        assert lost == [whole] * 4 + [[True] * 2 * GENERATIONS] + [whole] * 7
        assert trainer.batches[4]["advantages"] == [0.0] * 2 * GENERATIONS
