"""TRL's SFTTrainer and DPOTrainer on exported runs, with a tiny model."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.data_utils import prepare_multimodal_messages

from ors_gym.evaluation import evaluate, export
from tests.evaluation.runs import make_run, write_run
from tests.integrations.tiny_model import call_text, make_model, make_tokenizer

GROUP = "training"
ADD = call_text("add", {"a": 1, "b": 2})
RIGHT = call_text("submit", {"answer": "0"})
WRONG = call_text("submit", {"answer": "1"})


@pytest.fixture
def run(one_server: Any, tmp_path: Path) -> Path:
    """A run of a real server: of one task, half of the episodes are right."""

    def play(episode: Any) -> str:
        if not episode.steps:
            return ADD
        return RIGHT if episode.number % 2 else WRONG

    output = tmp_path / "run.jsonl"
    evaluate(
        one_server.base_url,
        "Contract",
        [0],
        play,
        split="train",
        episodes_per_task=8,
        output=output,
        progress=False,
        success=1.0,
    )
    return output


def settings(directory: Path, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(directory / "trained"),
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "bf16": False,
        "disable_tqdm": True,
        "seed": 0,
    }


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ids_of(tokenizer: Any, rows: Any) -> list[list[int]]:
    return [
        tokenizer.apply_chat_template(
            row["messages"], tools=row["tools"], tokenize=True, return_dict=False
        )
        for row in rows
    ]


def test_sft_learns_the_calls_of_successes(run, tmp_path):
    torch.set_num_threads(1)
    done = export(run, "huggingface", success=True, progress=False)
    rows = load_dataset(done.output, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == done.rows == 4
    assert set(rows["total_reward"]) == {1.5}
    tokenizer = make_tokenizer([ADD, RIGHT, WRONG], map(str, range(10)))
    trainer = SFTTrainer(
        make_model(tokenizer, seed=0),
        args=SFTConfig(**settings(tmp_path, 30), max_length=None),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    # What is trained on is the conversation with its calls and tools.
    prepared = trainer.train_dataset["input_ids"]
    assert [list(ids) for ids in prepared] == ids_of(tokenizer, rows)
    called = {tokenizer.convert_tokens_to_ids(call) for call in (ADD, RIGHT)}
    assert called <= set(prepared[0])
    trainer.train()
    found = losses(trainer)
    assert all(map(math.isfinite, found))
    assert found[-1] < found[0] / 2


def test_dpo_prefers_what_was_rewarded(run, tmp_path):
    torch.set_num_threads(1)
    done = export(run, "parquet", pairs=True, progress=False)
    rows = load_dataset(
        "parquet",
        data_files=done.output,
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(rows) == done.rows == 4
    tokenizer = make_tokenizer([ADD, RIGHT, WRONG], map(str, range(10)))
    trainer = DPOTrainer(
        make_model(tokenizer, seed=0),
        ref_model=make_model(tokenizer, seed=0),
        args=DPOConfig(**settings(tmp_path, 6), max_length=None),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()
    found = losses(trainer)
    assert all(map(math.isfinite, found))
    assert found[-1] < found[0]
    margins = [
        entry["rewards/margins"]
        for entry in trainer.state.log_history
        if "rewards/margins" in entry
    ]
    assert margins[-1] > 0


def test_images_are_where_trl_looks_for_them(tmp_path):
    records = [make_run(n // 2, n % 2, number=n % 2) for n in range(4)]
    run = write_run(tmp_path / "run.jsonl", records)
    cache = str(tmp_path / "cache")
    done = export(run, "huggingface", progress=False)
    rows = load_dataset(done.output, split="train", cache_dir=cache)
    for row in rows:
        told = prepare_multimodal_messages(row["messages"], row["images"])
        parts = [part for message in told for part in message["content"]]
        shown = [part["image"] for part in parts if part["type"] == "image"]
        assert [image.size for image in shown] == [(3, 2)] * 3
    done = export(run, "parquet", pairs=True, progress=False)
    rows = load_dataset(
        "parquet", data_files=done.output, split="train", cache_dir=cache
    )
    for row in rows:
        (asked,) = prepare_multimodal_messages(row["prompt"], row["images"])
        assert [part["type"] for part in asked["content"]] == ["text", "image"]
        for name in ("chosen", "rejected"):
            assert prepare_multimodal_messages(row[name]) == row[name]
