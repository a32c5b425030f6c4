"""Exported runs, read back and checked by the library of each format."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import datasets
import hypothesis
import minari
import pyarrow.parquet as parquet
import pytest
from atif import Trajectory
from hypothesis import strategies as st
from PIL import Image

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, evaluate, export
from ors_gym.formats import to_openai_tools
from ors_gym.formats._blocks import render_text, replace_surrogates
from ors_gym.formats._messages import to_template_messages
from ors_gym.rollout import Episode, TurnTokens
from ors_gym.rollout._output import Record
from tests.evaluation.runs import CANARY, USAGE, make_run, with_task, write_run
from tests.formats.images import encode
from tests.spaces.texts import TEXTS
from tests.support.virtual_environments import ROOT

GROUP = "export"
MANY: Final = 10_000


@pytest.fixture(autouse=True)
def _own_places(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(name: str, folder: Path, **options: Any) -> Any:
    return datasets.load_dataset(name, cache_dir=str(folder / "cache"), **options)


def images_of(episode: Episode) -> list[bytes]:
    blocks = [*episode.prompt, *(b for step in episode.steps for b in step.blocks)]
    return [base64.b64decode(b["data"]) for b in blocks if b["type"] == "image"]


def expected_messages(episode: Episode, *, images: bool) -> list[dict[str, Any]]:
    """Return the messages as a trainer takes them, with images as places."""
    messages = []
    for message in to_template_messages(episode.messages()):
        content = message["content"]
        if images and isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if isinstance(content, list):
            content = [
                part if part["type"] == "text" else {"type": "image"}
                for part in content
            ]
        messages.append({**message, "content": content})
    text = replace_surrogates(json.dumps(messages, ensure_ascii=False))
    return list(json.loads(text))


def without_none(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


def check_rows(found: Any, records: Sequence[Record]) -> None:
    """Compare the rows of a data set with the episodes."""
    assert len(found) == len(records)
    images = "images" in found.features
    if images:
        raw = datasets.List(datasets.Image(decode=False))
        found = found.cast_column("images", raw)
    for row, record in zip(found, records, strict=True):
        episode = record.episode
        expected = expected_messages(episode, images=images)
        assert list(map(without_none, row["messages"])) == expected
        assert row["tools"] == to_openai_tools(episode.tools)
        shown = [image["bytes"] for image in row["images"]] if images else []
        assert shown == images_of(episode)
        known = (row["split"], row["task_index"], row["episode"], row["success"])
        key = (episode.split, episode.task_index, episode.number, record.success)
        assert known == key
        assert row["total_reward"] == episode.total_reward


def check_parquet(output: str, records: Sequence[Record], folder: Path) -> None:
    assert parquet.read_metadata(output).num_rows == len(records)
    found = load("parquet", folder, data_files=output, split="train")
    check_rows(found, records)


def check_directory(output: str, records: Sequence[Record], folder: Path) -> None:
    found = load(output, folder)
    splits = {record.episode.split for record in records}
    assert set(found) == splits
    for split in splits:
        check_rows(found[split], [one for one in records if one.episode.split == split])


def check_chat(output: str, records: Sequence[Record], _: Path) -> None:
    with Path(output).open() as file:
        for line, record in zip(file, records, strict=True):
            row = json.loads(line)
            assert row["messages"] == record.episode.messages()
            assert row["tools"] == to_openai_tools(record.episode.tools)


def check_atif(output: str, records: Sequence[Record], _: Path) -> None:
    paths = sorted(Path(output).glob("*.json"))
    for path, record in zip(paths, records, strict=True):
        episode = record.episode
        trajectory = Trajectory.model_validate_json(path.read_text())
        assert trajectory.to_json_dict() == json.loads(path.read_text())
        agent = [step for step in trajectory.steps if step.source == "agent"]
        assert len(agent) == len(episode.turns)
        calls = [call for step in agent for call in step.tool_calls or ()]
        made = [(step.tool, step.input) for step in episode.steps if step.tool]
        assert [(call.function_name, call.arguments) for call in calls] == made
        shown = [
            Path(output, part.source.path).read_bytes()
            for step in trajectory.steps
            for content in (
                step.message,
                *(one.content for one in getattr(step.observation, "results", ())),
            )
            if isinstance(content, list)
            for part in content
            if part.type == "image"
        ]
        assert shown == images_of(episode)
        assert (trajectory.extra or {})["total_reward"] == episode.total_reward


def check_minari(output: str, records: Sequence[Record], _: Path) -> None:
    found = minari.load_dataset(output)
    assert found.total_episodes == len(records)
    assert found.total_steps == sum(len(one.episode.steps) for one in records)
    for played, record in zip(found.iterate_episodes(), records, strict=True):
        episode = record.episode
        replies = [episode.prompt, *(list(step.reply) for step in episode.steps)]
        texts = [render_text(blocks).replace("\0", "\u2400") for blocks in replies]
        assert list(played.observations) == texts
        kept = [json.loads(text) for text in played.infos["blocks"]]
        assert kept == replies
        calls = [json.loads(action) for action in played.actions]
        assert calls == [{"tool": s.tool, "input": s.input} for s in episode.steps]
        assert list(played.rewards) == [step.reward for step in episode.steps]
        assert played.terminations[-1] == episode.finished
        assert not played.terminations[:-1].any()


CHECKS: Final[dict[Any, Callable[[str, Sequence[Record], Path], None]]] = {
    "parquet": check_parquet,
    "huggingface": check_directory,
    "chat": check_chat,
    "atif": check_atif,
    "minari": check_minari,
}


def contents(output: str) -> bytes:
    """Return all that an export wrote, without compression."""
    path = Path(output)
    if not path.exists():
        path = Path(os.environ["MINARI_DATASETS_PATH"], output)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return b"".join(map(read_plain, filter(Path.is_file, files)))


def read_plain(file: Path) -> bytes:
    if file.suffix == ".parquet":
        return repr(parquet.read_table(file).to_pylist()).encode()
    return file.read_bytes()


@pytest.mark.parametrize("to", CHECKS)
def test_a_run_of_a_real_server_in_each_format(server, tmp_path, to):
    calls = [
        {"tool": "image", "input": {}},
        {"tool": "metadata", "input": {}},
        {"tool": "submit", "input": {"answer": "0"}},
    ]
    tasks = [
        {"id": f"mine-{n}", "question": "?", "answer": f"{CANARY}-{n}"}
        for n in range(3)
    ]
    run = tmp_path / "run.jsonl"
    found = evaluate(
        server.base_url,
        "Contract",
        tasks,
        lambda episode: calls[len(episode.steps)],
        split="train",
        keep_metadata=True,
        output=run,
        progress=False,
    )
    assert found.outcomes == 3
    assert CANARY in run.read_text()
    assert '"metadata":{' in run.read_text()
    done = export(run, to, progress=False)
    assert done.rows == 3
    records = Evaluation.load(run).records
    CHECKS[to](done.output, records, tmp_path)
    metadata = records[0].episode.steps[1].metadata
    assert metadata
    written = contents(done.output)
    assert CANARY.encode() not in written
    for name in metadata:
        assert json.dumps(name).encode() not in written


@pytest.mark.parametrize("to", CHECKS)
def test_answers_are_in_no_format(tmp_path, to):
    records = [make_run(0), with_task(make_run(1)), make_run(2, None)]
    run = write_run(tmp_path / "run.jsonl", records)
    assert CANARY in run.read_text()
    done = export(run, to, progress=False)
    assert (done.rows, done.left_out) == (2, {"without an outcome": 1})
    written = contents(done.output)
    assert b"What is in 0?" in written
    assert CANARY.encode() not in written
    with pytest.raises(InvalidRequestError, match="there already"):
        export(run, to, progress=False)


@pytest.mark.parametrize("to", CHECKS)
def test_any_text_is_carried(tmp_path, to):
    records = [
        make_run(n, said=text or "-", seen=text, image=None)
        for n, text in enumerate(
            [*TEXTS, "half \ud800", "nul \0 end", '{"a": 1}', "[]"]
        )
    ]
    run = write_run(tmp_path / "run.jsonl", records)
    done = export(run, to, progress=False)
    CHECKS[to](done.output, records, tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@hypothesis.given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text(max_size=5), json_values, max_size=3), st.text()
        ),
        min_size=1,
        max_size=4,
    )
)
@hypothesis.settings(
    max_examples=30,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("to", ["parquet", "atif"])
def test_any_arguments_are_carried(tmp_path_factory, to, played):
    folder = tmp_path_factory.mktemp("any")
    records = []
    for n, (given, said) in enumerate(played):
        record = make_run(n, said=said, image=None, steps=1)
        text = replace_surrogates(json.dumps(given, ensure_ascii=False))
        record.episode.steps[0].input = json.loads(text)
        record.episode.turns[0].actions[0]["input"] = json.loads(text)
        records.append(record)
    run = write_run(folder / "run.jsonl", records)
    done = export(run, to, progress=False)
    CHECKS[to](done.output, records, folder)


def test_pairs_have_the_columns_of_dpo(tmp_path):
    records = [
        make_run(n // 2, float(n % 2), number=n % 2, steps=n % 2 + 1) for n in range(6)
    ]
    run = write_run(tmp_path / "run.jsonl", records)
    done = export(run, "parquet", pairs=True, progress=False)
    found = load("parquet", tmp_path, data_files=done.output, split="train")
    assert len(found) == done.rows == 3
    for row, worse, better in zip(found, records[::2], records[1::2], strict=True):
        prompt = [{"type": "text", "text": f"What is in {row['task_index']}?"}]
        assert [m["content"] for m in row["prompt"]] == [[*prompt, {"type": "image"}]]
        for name, record in (("chosen", better), ("rejected", worse)):
            whole = expected_messages(record.episode, images=True)[1:]
            roles = [message["role"] for message in row[name]]
            assert roles == [message["role"] for message in whole]
            # DPOTrainer takes images in the prompt only: they stand beside the text.
            assert not any({"type": "image"} in m["content"] for m in row[name])
            assert "[image: image/png, 3x2]" in json.dumps(row[name])
            assert len(row[f"{name}_images"]) == len(record.episode.steps)
            assert row[f"{name}_total_reward"] == record.episode.total_reward
        assert row["images"][0].size == (3, 2)


@pytest.mark.parametrize("to", ["parquet", "huggingface"])
def test_pairs_of_other_prompts_alone_leave_no_file(tmp_path, to):
    better, worse = make_run(0, 1.0), make_run(0, 0.0, number=1)
    worse.episode.prompt = [{"type": "text", "text": "Another question."}]
    run = write_run(tmp_path / "run.jsonl", [better, worse])
    with pytest.raises(InvalidRequestError, match="nothing is left to export: 2 with"):
        export(run, to, tmp_path / "out", pairs=True, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_trajectory_has_counts_of_tokens_and_rewards(tmp_path):
    record = make_run()
    record.episode.turns[1].tokens = TurnTokens([1, 2], [3, 4], [-0.5, -0.25])
    run = write_run(tmp_path / "run.jsonl", [record])
    done = export(run, "atif", progress=False)
    text = Path(done.output, "000000.json").read_text()
    found = Trajectory.model_validate_json(text)
    assert found.agent.name == "painter"
    assert found.steps[1].metrics is not None
    assert found.steps[1].metrics.cached_tokens == 5
    assert found.final_metrics is not None
    assert found.final_metrics.total_prompt_tokens == 2 * USAGE["prompt_tokens"]
    assert found.final_metrics.total_completion_tokens == USAGE["completion_tokens"] + 2
    assert found.steps[2].metrics is not None
    assert found.steps[2].metrics.completion_token_ids == [3, 4]
    assert found.steps[2].metrics.logprobs == [-0.5, -0.25]
    (result,) = found.steps[2].observation.results
    assert result.extra is not None
    assert (result.extra["reward"], result.extra["finished"]) == (1.0, True)
    assert found.has_multimodal_content()


def test_calls_that_were_not_run_and_text_are_told_apart(tmp_path):
    record = make_run(steps=1, image=None)
    first = record.episode.turns[0]
    first.actions.append({"tool": "look", "input": {"at": 9}})
    first.call_ids.append("late")
    run = write_run(tmp_path / "run.jsonl", [record])
    done = export(run, "atif", progress=False)
    text = Path(done.output, "000000.json").read_text()
    agent = Trajectory.model_validate_json(text).steps[1]
    assert [one.source_call_id for one in agent.observation.results] == [
        "call_0_0",
        "late",
    ]
    assert agent.observation.results[1].content == "not run: episode finished"


def test_a_name_that_minari_refuses_is_refused_before_it_writes(tmp_path):
    run = write_run(tmp_path / "run.jsonl", [make_run()])
    for name in ("no version", "a/b", "../up-v0"):
        with pytest.raises(InvalidRequestError, match="is no id of a data set"):
            export(run, "minari", name, progress=False)
    assert export(run, "minari", progress=False).output == "Pictures/run-v0"


def many(count: int) -> Any:
    for n in range(count):
        colour = (n % 256, n // 256 % 256, 7)
        picture = encode(Image.new("RGB", (64, 64), colour))
        noise = base64.b64encode(os.urandom(4800)).decode()
        yield make_run(n // 4, float(n % 4), number=n % 4, image=picture, said=noise)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("to", CHECKS)
def test_ten_thousand_episodes_in_the_memory_of_one_thousand(tmp_path, to):
    peaks = {}
    for count in (MANY // 10, MANY):
        run = write_run(tmp_path / f"run{count}.jsonl", many(count))
        output = f"many{count}-v0" if to == "minari" else str(tmp_path / f"out{count}")
        command = [sys.executable, "-m", "tests.integrations.exporting"]
        said = subprocess.run(
            [*command, str(run), to, output],
            check=True,
            capture_output=True,
            cwd=ROOT,
            text=True,
        ).stdout
        done = json.loads(said)
        assert done["rows"] == count
        peaks[count] = done["peak_kib"]
    grown = peaks[MANY] - peaks[MANY // 10]
    size = run.stat().st_size // 1024
    print(f"\n{to}: {peaks} KiB, +{grown} KiB for a run of {size} KiB")  # noqa: T201
    # An index of the episodes grows, their content does not. The run is large enough
    # for what an allocator keeps now and then, up to 12 MB.
    assert grown < size / 5
    CHECKS[to](output, Evaluation.load(run).records, tmp_path)
