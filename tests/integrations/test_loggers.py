"""Evaluations that are recorded by W&B, MLflow and the platform's own client.

W&B is offline, MLflow has a store of files, and a small server takes what the
platform's client sends.
"""

import contextlib
import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from ors_gym.errors import AuthenticationError
from ors_gym.evaluation import Evaluation, evaluate
from ors_gym.integrations.mlflow import MlflowLogger
from ors_gym.integrations.openreward import OpenRewardLogger
from ors_gym.integrations.wandb import WandbLogger
from ors_gym.rollout import Episode, Turn
from tests.support.servers.process import start_server
from tests.support.virtual_environments import ROOT

GROUP = "loggers"


@pytest.fixture(scope="module")
def server():
    with start_server("ors-sdk-0.1.0") as running:
        yield running


def answer(episode: Episode) -> Any:
    """Add with words, which is refused, then with numbers, then submit."""
    if episode.task_index == 3:
        raise ZeroDivisionError("the model is gone")
    call: dict[str, Any] = {"tool": "add", "input": {"a": len(episode.turns), "b": 2}}
    if not episode.steps:
        call["input"]["a"] = "one"
        return Turn(call, {"role": "assistant", "content": "", "reasoning": "Add!"})
    if len(episode.steps) == 2:
        return {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}
    return call


def play(server: Any, log_to: Any, **options: Any) -> Evaluation:
    options = {"split": "train", "progress": False, "policy_name": "adder", **options}
    asked = server.base_url, "Contract", range(4), answer
    return evaluate(*asked, log_to=log_to, **options)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return tmp_path


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read what a run that was offline logged: its file is a log of LevelDB."""
    # The service writes it, and may not have done so when the run is finished.
    wandb.teardown()
    (path,) = folder.rglob("*.wandb")
    data, place, record, logged = path.read_bytes(), 7, b"", []
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            read = wandb_internal_pb2.Record.FromString(record)
            logged += [read.history] if read.HasField("history") else []
            record = b""
    return [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in step.item
        }
        for step in logged
    ]


def test_wandb_has_figures_episodes_and_the_report(server, offline):
    logger = WandbLogger(project="ors")
    found = play(server, logger)
    *episodes, end = read_history(offline)
    outcomes = [one for one in episodes if "eval/episode/success" in one]
    rewards = [one["eval/episode/total_reward"] for one in outcomes]
    assert (sorted(rewards), len(episodes)) == (sorted(found.rewards), 4)
    for name, value in found.metrics().items():
        assert end[name] == pytest.approx(value)
    assert end["eval/invalid_calls"] == 3
    (table,) = offline.rglob("*.table.json")
    rows = json.loads(table.read_text())
    assert len(rows["data"]) == 4
    assert {"task_index", "total_reward", "error_kind"} <= set(rows["columns"])
    (page,) = offline.rglob("*.html")
    assert "Episodes" in page.read_text()


def test_wandb_uses_one_step_of_a_run_that_is_lent(server, offline):
    with wandb.init(project="ors", dir=str(offline)) as run:
        run.log({"loss": 1.0}, step=5)
        found = play(server, WandbLogger(run, prefix="val/", step=6))
        # Not finished, and no step is used up.
        run.log({"loss": 0.5}, step=7)
        assert run.config["val"]["policy"] == "adder"
    history = read_history(offline)
    assert [one["_step"] for one in history] == [5, 6, 7]
    assert history[1]["val/success_rate"] == found.success_rate
    assert not any("episode/" in name for name in history[1])


@pytest.fixture
def tracking_uri(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_mlflow_has_figures_episodes_and_the_report(server, tracking_uri):
    logger = MlflowLogger(tracking_uri=tracking_uri, run_name="first")
    found = play(server, logger)
    client = mlflow.MlflowClient(tracking_uri)
    run = client.get_run(logger.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["eval/policy"] == "adder"
    for name, value in found.metrics().items():
        assert run.data.metrics[name.replace("errors/", "errors.")] == pytest.approx(
            value
        )
    history = client.get_metric_history(logger.run_id, "eval/episode/steps")
    assert sorted(point.step for point in history) == [0, 1, 2, 3]
    folder = Path(client.download_artifacts(logger.run_id, "eval"))
    assert "Episodes" in (folder / "report.html").read_text()
    assert len(json.loads((folder / "episodes.json").read_text())["rows"]) == 4


def test_mlflow_logs_twice_into_a_run_that_is_lent(server, tracking_uri):
    client = mlflow.MlflowClient(tracking_uri)
    run_id = client.create_run(client.create_experiment("training")).info.run_id
    for step in (1, 2):
        options: Any = {"tracking_uri": tracking_uri, "step": step}
        play(server, MlflowLogger(run_id, **options), policy_name=f"step {step}")
    history = client.get_metric_history(run_id, "eval/success_rate")
    assert [point.step for point in history] == [1, 2]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_mlflow_counts_the_episodes_of_each_run_of_its_own(server, tracking_uri):
    logger = MlflowLogger(tracking_uri=tracking_uri)
    client, runs = mlflow.MlflowClient(tracking_uri), set()
    for _ in range(2):
        play(server, logger)
        history = client.get_metric_history(logger.run_id, "eval/episode/steps")
        assert [point.step for point in history] == [0, 1, 2, 3]
        runs.add(logger.run_id)
    assert len(runs) == 2


def run_block(start: str, server: Any) -> dict[str, Any]:
    """Run the block of docs/recipes.md that begins so, on the contract server."""
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"^```python[^\n]*\n({start}\n.*?)^```$", page, FLAGS)
    names: dict[str, Any] = {"policy": answer_in_time}

    def evaluate_here(_url: None, _name: str, tasks: range, *given: Any, **named: Any):
        asked = server.base_url, "Contract", tasks, *given
        return evaluate(*asked, split="train", progress=False, **named)

    names["evaluate"] = evaluate_here
    exec(compile(code, "recipes.md", "exec"), names)
    return names


def answer_in_time(episode: Episode) -> Any:
    return {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}


FLAGS = re.DOTALL | re.MULTILINE


def test_trackio_has_each_episode_and_the_figures(server, tmp_path):
    # It reads where its files are when it is imported.
    script = f"""
from tests.integrations.test_loggers import run_block
from tests.support.servers.process import start_server
from tests.support.virtual_environments import ROOT
import types
run_block("import trackio", types.SimpleNamespace(base_url={server.base_url!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "TRACKIO_DIR": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        logged = [
            json.loads(row[0])
            for row in database.execute("select metrics from metrics order by step")
        ]
    *episodes, figures = logged
    assert [one["total_reward"] for one in episodes] == [1.0] * 6
    assert figures["eval/success_rate"] == 1.0


def test_tensorboard_has_each_episode_and_the_figures(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_block("from tensorboard.summary import Writer", server)
    events = EventAccumulator(str(tmp_path / "runs" / "guess"))
    events.Reload()
    (tag,) = (tag for tag in events.Tags()["tensors"] if tag == "total_reward")
    assert [event.step for event in events.Tensors(tag)] == list(range(1, 7))
    assert len(names["played"]) == 6
    assert "eval/success_rate" in events.Tags()["tensors"]


class Platform(ThreadingHTTPServer):
    """What the platform's client asks for and sends; ``refuses`` refuses all of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.refuses = False


class _Handler(BaseHTTPRequestHandler):
    server: Platform

    def do_GET(self) -> None:
        self._reply({"id": f"id of {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.add(self.headers["x-api-key"])
        if not self.server.refuses:
            self.server.events += json.loads(body)["events"]
        self._reply({})

    def _reply(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(403 if self.server.refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def running_platform() -> Iterator[Platform]:
    with Platform() as platform:
        thread = threading.Thread(target=platform.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield platform
        finally:
            platform.shutdown()
            thread.join()


@pytest.fixture
def platform(monkeypatch):
    with running_platform() as running:
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("OPENREWARD_API_URL", address)
        monkeypatch.setenv("OPENREWARD_DISABLE_UPDATE_CHECK", "1")
        monkeypatch.setenv("OPENREWARD_API_KEY", "key of the platform")
        yield running


def test_the_platform_gets_a_rollout_for_each_outcome(server, platform):
    found = play(server, OpenRewardLogger("my run", environment="Me/Contract"))
    started = [one for one in platform.events if one["eventType"] == "rollout"]
    assert {one["rolloutName"] for one in started} == {
        f"train/{index}/0" for index in range(3)
    }
    for one in started:
        assert (one["runName"], one["environment"]) == ("my run", "Me/Contract")
        assert one["environment_id"] == "id of /v1/environments/Me/Contract"
        assert one["split"] == "train"
        assert one["run_info"]["model_name"] == "adder"
        assert "task_spec" not in one
    updates = [one for one in platform.events if one["eventType"] == "rollout_update"]
    assert {one["rollout_info"]["task_index"] for one in updates} == {0, 1, 2}
    for one, episode in zip(started, found.episodes, strict=False):
        said = [e for e in platform.events if e.get("rolloutEventId") == one["eventId"]]
        assert sorted(e["index"] for e in said) == list(range(len(said)))
        said.sort(key=lambda event: event["index"])
        assert [event["type"] for event in said] == [
            "user_message",
            "reasoning",
            *["tool_call", "tool_result"] * 3,
        ]
        results = [event for event in said if event["type"] == "tool_result"]
        rewards = [event.get("reward") for event in results]
        assert rewards == [None, *(step.reward for step in episode.steps[1:])]
        assert [event["isFinished"] for event in results] == [False, False, True]
        assert results[0]["metadata"] == {"error_kind": "invalid_action"}
        calls = Counter(event.get("callId") for event in said if event.get("callId"))
        assert set(calls.values()) == {2}
    assert platform.keys == {"key of the platform"}


def test_the_platform_tells_two_evaluations_by_one_logger_apart(server, platform):
    logger = OpenRewardLogger()
    play(server, logger, policy_name="first")
    play(server, logger, policy_name="second")
    started = [one for one in platform.events if one["eventType"] == "rollout"]
    models = [one["run_info"]["model_name"] for one in started]
    assert models == ["first"] * 3 + ["second"] * 3
    for one in started:
        model = one["run_info"]["model_name"]
        assert one["runName"].startswith(f"contract {model} ")
    assert len({one["runName"] for one in started}) == 2


def test_the_platform_gets_a_prompt_with_its_roles(newest, platform):
    evaluate(
        *(newest.base_url, "Interview", [2], lambda _: "?"),
        max_turns=1,
        log_to=OpenRewardLogger("my run"),
        progress=False,
    )
    said = [e for e in platform.events if "index" in e]
    said.sort(key=lambda event: event["index"])
    told = [(event["type"], event["content"]) for event in said[:7]]
    assert told == [
        ("system_message", "Be brief."),
        ("user_message", "Is it 7?"),
        ("reasoning", "Let me try."),
        ("assistant_message", "I try."),
        ("tool_call", '{"answer": "7"}'),
        ("tool_result", "wrong"),
        ("user_message", "2 + 2 = ?"),
    ]
    assert said[4]["callId"] == said[5]["callId"] == "c1"


def test_a_platform_that_takes_nothing_is_warned_of(server, platform):
    platform.refuses = True
    with pytest.warns(UserWarning, match="did not take the rollout; is the key right"):
        assert play(server, OpenRewardLogger()).outcomes == 3
    assert not platform.events


def test_without_a_key_nothing_is_played(server, monkeypatch):
    monkeypatch.delenv("OPENREWARD_API_KEY", raising=False)
    with pytest.raises(AuthenticationError, match="OPENREWARD_API_KEY"):
        play(server, OpenRewardLogger())
