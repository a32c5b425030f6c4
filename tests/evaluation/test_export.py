"""Exports: what is chosen, what is left out, and the format that needs no library.

The formats of other libraries are in ``tests/integrations/test_exports.py``.
"""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ors_gym.cli import main
from ors_gym.errors import InvalidRequestError, MissingExtraError
from ors_gym.evaluation import Evaluation, Exported, export
from ors_gym.evaluation._export import atif, tables
from ors_gym.evaluation._export.chosen import make_pairs
from ors_gym.evaluation._read_run import open_run
from ors_gym.formats._json_lines import encode_line
from ors_gym.types import JSONObject
from tests.evaluation.runs import CANARY, make_run, with_task, write_run
from tests.formats.images import RED, image_block

pytestmark = pytest.mark.unit


@pytest.fixture
def run(tmp_path):
    """Six episodes: two of each of the tasks 0 and 1, an outage, and another split."""
    records = [make_run(index, 0.5 * n, number=n) for index in (0, 1) for n in (0, 1)]
    records += [make_run(2, None), with_task(make_run(3, split="test"))]
    return write_run(tmp_path / "run.jsonl", records)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_is_the_conversation_and_how_it_went(run, tmp_path):
    done = export(run, "chat", progress=False)
    output = tmp_path / "run-chat.jsonl"
    assert done == Exported(str(output), 5, {"without an outcome": 1})
    assert str(done) == f"wrote {output}: 5 rows; left out: 1 without an outcome"
    rows = read(output)
    for row, episode in zip(rows, Evaluation.load(run).episodes[:4], strict=False):
        assert row["messages"] == episode.messages()
        assert row["tools"][0]["function"]["name"] == "look"
        assert (row["task_index"], row["episode"]) == (
            episode.task_index,
            episode.number,
        )
        assert row["total_reward"] == episode.total_reward
    assert RED in output.read_text()
    assert CANARY in run.read_text()
    assert CANARY not in output.read_text()


def test_an_evaluation_that_was_not_written_needs_a_name(run, tmp_path):
    found = Evaluation.load(run)
    with pytest.raises(InvalidRequestError, match="give output="):
        export(found, "chat", progress=False)
    output = tmp_path / "deep" / "there.jsonl"
    assert export(found, "chat", output, progress=False).rows == 5
    assert export(run, "chat", tmp_path / "b.jsonl", progress=False).rows == 5
    assert output.read_text() == (tmp_path / "b.jsonl").read_text()


@pytest.mark.parametrize(
    ("chosen", "rewards", "left_out"),
    [
        ({"success": True}, [0.5, 0.5, 1.0], {"failed": 2}),
        ({"success": False}, [0.0, 0.0], {"successful": 3}),
        ({"min_reward": 0.6}, [1.0], {"with another reward": 4}),
        ({"max_reward": 0.0}, [0.0, 0.0], {"with another reward": 3}),
        ({"split": "test"}, [1.0], {"of another split": 4}),
    ],
)
def test_episodes_are_chosen_by_what_came_of_them(
    run, tmp_path, chosen, rewards, left_out
):
    done = export(run, "chat", tmp_path / "a.jsonl", progress=False, **chosen)
    rows = read(tmp_path / "a.jsonl")
    assert [row["total_reward"] for row in rows] == rewards
    assert done.left_out == {"without an outcome": 1, **left_out}


def test_the_best_of_a_task_is_paired_with_its_worst(tmp_path):
    rewards = [(0, r) for r in (0.2, 1.0, 0.0, 0.8, 0.5)] + [(1, 1.0), (1, 1.0), (2, 0)]
    records = [make_run(i, r, number=n) for n, (i, r) in enumerate(rewards)]
    run = write_run(tmp_path / "run.jsonl", records)
    with open_run(run) as opened:
        pairs = make_pairs(opened.rows)
    assert [(a.reward, b.reward) for a, b in pairs] == [(1.0, 0.0), (0.8, 0.2)]
    done = export(run, "chat", pairs=True, progress=False)
    assert (done.rows, done.left_out) == (2, {"without a pair": 4})
    first = read(tmp_path / "run-chat.jsonl")[0]
    assert (first["chosen_total_reward"], first["rejected_total_reward"]) == (1.0, 0.0)
    assert (first["chosen_episode"], first["rejected_episode"]) == (1, 2)
    messages = records[1].episode.messages()
    assert first["prompt"] + first["chosen"] == messages
    assert len(first["prompt"]) == 1


def test_a_pair_has_one_prompt(tmp_path):
    better, worse = make_run(0, 1.0), make_run(0, 0.0, number=1)
    worse.episode.prompt = [{"type": "text", "text": "Another question."}]
    rest = [make_run(1, 1.0), make_run(1, 0.0, number=1)]
    run = write_run(tmp_path / "run.jsonl", [better, worse, *rest])
    done = export(run, "chat", pairs=True, progress=False)
    assert done.left_out == {"with another prompt than their pair": 2}
    assert [row["task_index"] for row in read(tmp_path / "run-chat.jsonl")] == [1]


def test_pairs_of_other_prompts_alone_are_nothing_to_export(tmp_path):
    better, worse = make_run(0, 1.0), make_run(0, 0.0, number=1)
    worse.episode.prompt = [{"type": "text", "text": "Another question."}]
    run = write_run(tmp_path / "run.jsonl", [better, worse])
    why = "nothing is left to export: 2 with another prompt than their pair"
    for output in (None, tmp_path / "deep" / "deeper" / "there.jsonl"):
        with pytest.raises(InvalidRequestError, match=why):
            export(run, "chat", output, pairs=True, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]


class Place(os.PathLike[str]):
    """A path whose text is not the path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def test_a_path_may_be_anything_that_stands_for_one(run, tmp_path):
    done = export(Place(run), "chat", progress=False)
    assert done.output == str(tmp_path / "run-chat.jsonl")
    output = tmp_path / "other.jsonl"
    done = export(run, "chat", Place(output), progress=False)
    assert done.output == str(output)
    assert len(read(output)) == done.rows


def test_of_several_rows_of_an_episode_the_last_counts(tmp_path):
    run = write_run(tmp_path / "run.jsonl", [make_run(0, 0.0), make_run(1)])
    with run.open("ab") as file:
        file.write(encode_line(make_run(0, 1.0).row(), "the row"))
        file.write(b'{"task_index":5,"torn')
    export(run, "chat", progress=False)
    rows = read(tmp_path / "run-chat.jsonl")
    assert [(r["task_index"], r["total_reward"]) for r in rows] == [(0, 1.0), (1, 1.0)]


def test_what_cannot_be_exported_says_why_and_leaves_nothing_behind(run, tmp_path):
    there = {path.name for path in tmp_path.iterdir()}

    def refused(match: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(InvalidRequestError, match=match):
            export(*arguments, progress=False, **options)

    refused("to is 'csv'; it must be one of 'parquet'", run, "csv")
    refused("atif holds no pairs; these formats do: parquet", run, "atif", pairs=True)
    refused(
        "left to export: 5 with another reward, 1 without", run, "chat", min_reward=9.0
    )
    refused("there already", run, "chat", run)
    refused("cannot be read", tmp_path / "none.jsonl", "chat")
    refused("cannot be written", run, "chat", run / "below.jsonl")
    empty = write_run(tmp_path / "empty.jsonl", [])
    refused("there is no episode", empty, "chat")
    (tmp_path / "other.jsonl").write_text("{}\n")
    refused("is no output file", tmp_path / "other.jsonl", "chat")
    damaged = write_run(tmp_path / "damaged.jsonl", [make_run()])
    damaged.write_bytes(damaged.read_bytes() + b'{"task_index":1}\n')
    refused("damaged", damaged, "chat")
    made = {"empty.jsonl", "other.jsonl", "damaged.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == there | made


@pytest.mark.parametrize(
    ("to", "module"),
    [
        ("parquet", "datasets"),
        ("huggingface", "datasets"),
        ("atif", "atif"),
        ("minari", "minari"),
    ],
)
def test_a_library_that_is_missing_is_named(run, tmp_path, monkeypatch, to, module):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[export\]"'):
        export(run, to, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]


def test_an_image_in_lines_of_base64_is_an_image(tmp_path):
    lines = base64.encodebytes(base64.b64decode(RED)).decode()
    assert lines.count("\n") > 1
    images: list[JSONObject] = []
    url = {"url": f"data:image/png;base64,{lines}"}
    part = {"type": "image_url", "image_url": url}
    assert tables._move_image(part, images, shows=True) == {"type": "image"}
    assert images == [{"bytes": base64.b64decode(RED), "path": None}]
    made = atif._Writer(tmp_path, {})._part(image_block(lines))
    assert made["type"] == "image"
    (path,) = (tmp_path / "images").iterdir()
    assert path.read_bytes() == base64.b64decode(RED)


def test_the_command_writes_and_says_what(run, tmp_path, capsys):
    assert main(["export", str(run), "--to", "chat", "--success", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 3
    assert said["left_out"] == {"without an outcome": 1, "failed": 2}
    assert len(read(tmp_path / "run-chat.jsonl")) == 3
    output = str(tmp_path / "worse.jsonl")
    arguments = ["--to", "chat", "--failure", "--max-reward", "0.5", "--split", "train"]
    assert main(["export", str(run), *arguments, "--output", output]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {output}: 2 rows; left out: ")
    assert main(["export", str(run), "--to", "chat"]) == 1
    assert "is there already" in capsys.readouterr().err
