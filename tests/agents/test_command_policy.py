"""An agent program as the policy: what it is given, and agents that behave badly."""

import asyncio
import base64
import contextlib
import functools
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import ors
import pytest

from ors_gym import ORSEnv, errors
from ors_gym.agents import AgentProgram
from ors_gym.agents._process import AgentProcess
from ors_gym.evaluation import evaluate
from ors_gym.protocol._redaction import Redactor
from ors_gym.rollout import CommandPolicy, Episode, run_episode, run_group
from ors_gym.server import serve
from tests.evaluation.contract_evaluations import play
from tests.formats.images import RED
from tests.support.proxy.faults import Point, Reset
from tests.support.virtual_environments import ROOT
from tests.support.waiting import wait_until

AGENT = Path(__file__).with_name("small_agent.py")
KEY = "sk-very-secret-key"


class Agent:
    """The small agent, and what it noted."""

    def __init__(self, directory: Path) -> None:
        self._notes = directory / "notes"
        self._notes.touch()

    def policy(self, way: str, *arguments: str, **options: Any) -> CommandPolicy:
        command = (sys.executable, "-S", str(AGENT), way, *arguments)
        program = AgentProgram(command=command, **options.pop("program", {}))
        env = {"NOTES": str(self._notes), "MY_API_KEY": KEY, **options.pop("env", {})}
        return CommandPolicy(program, env=env, **{"exit_timeout": 20.0, **options})

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    @property
    def said(self) -> list[list[Any]]:
        """What the tools said, and whether that was an error."""
        return [one["said"] for one in self.notes if "said" in one]

    def note(self, name: str) -> Any:
        return next(one[name] for one in self.notes if name in one)

    @property
    def alive(self) -> set[int]:
        return {pid for one in self.notes if _is_alive(pid := one["pid"])}


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture
def many_descriptors():
    """Keep the lowest 1,030 descriptors in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path)
    yield agent
    assert not agent.alive


def play_one(contract: Any, policy: CommandPolicy, **options: Any) -> Episode:
    (episode,) = play(contract, [0], policy, **{"deadline": 60.0, **options}).episodes
    return episode


def test_each_call_is_a_turn_and_its_step_the_answer(contract, agent):
    usage = {"line": {"type": "used"}, "input_tokens": ["tokens.in", "none.at.all"]}
    policy = agent.policy("play", "{prompt}?", program={"usage": usage})
    episode = play_one(contract, policy)
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.5)
    assert [turn.actions[0]["tool"] for turn in episode.turns] == [
        "add",
        "fail",
        "submit",
    ]
    assert [step.error_kind for step in episode.steps] == ["", "tool_failed", ""]
    failure = "fail raised on the server: no luck"
    assert agent.said == [["3", False], [failure, True], ["right", False]]
    assert agent.note("tools") == [tool["name"] for tool in episode.tools]
    assert agent.note("arguments")[0].endswith(episode.prompt[0]["text"] + "?")
    extra = episode.extra
    assert (extra["exit_code"], extra["ended"]) == (0, False)
    assert extra["usage"] == {"input_tokens": 11}
    assert episode.metrics()["input_tokens"] == 11
    assert Episode.from_json(episode.to_json()) == episode


def test_what_an_agent_is_given_is_chosen(contract, agent, tmp_path, monkeypatch):
    for name in ("ORS_API_KEY", "OPENREWARD_API_KEY", "MY_TOKEN", "MY_MODEL", "OTHER"):
        monkeypatch.setenv(name, f"{name}-of-ours")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    policy = agent.policy(
        "play",
        env={"HOME": "{directory}/home"},
        pass_env=["MY_*", "ORS_*"],
        program={
            "files": {
                "a/b.json": '{"url": "{mcp_url}", "{x}": {}}',
                "rules.md": "In {directory}: {prompt}",
            }
        },
        directory=tmp_path / "kept",
    )
    episode = play_one(contract, policy, secrets={"TOKEN": "s3cret-token"})
    env = agent.note("env")
    place = Path(agent.note("cwd"))
    assert set(env) <= {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "PWD"),
        *(name for name in env if name.startswith(("LANG", "LC_", "XDG_"))),
        *(name for name in env if "CA_" in name or "SSL_" in name),
        *("https_proxy", "NO_PROXY", "no_proxy", "ORS_MCP_URL", "ORS_MCP_CONFIG"),
        *("NOTES", "MY_API_KEY", "MY_TOKEN", "MY_MODEL"),
    }
    assert env["MY_TOKEN"] == "MY_TOKEN-of-ours"
    assert env["HOME"] == f"{place}/home"
    assert "127.0.0.1" in env["NO_PROXY"].split(",")
    assert "s3cret" not in json.dumps(agent.notes)
    assert place.is_relative_to(tmp_path / "kept")
    url = json.loads((place / "a/b.json").read_text())["url"]
    assert url == env["ORS_MCP_URL"]
    told = (place / "rules.md").read_text()
    assert told == f"In {place}: {agent.note('prompt')}"
    config = json.loads((place.parent / "mcp.json").read_text())
    assert config == {"mcpServers": {"ors": {"type": "http", "url": url}}}
    assert agent.note("prompt").endswith(episode.prompt[0]["text"])
    # The key of ORS is given where it is asked for by its name.
    play_one(contract, agent.policy("play", pass_env=["ORS_API_KEY"]))
    assert agent.notes[-5]["env"]["ORS_API_KEY"] == "ORS_API_KEY-of-ours"
    assert not Path(agent.notes[-5]["cwd"]).exists()


def test_pictures_of_the_prompt_are_files(agent):
    found = evaluate(None, "maze", [0], agent.policy("look"), progress=False)
    assert found.episodes[0].stop_reason == "policy_stopped"
    assert agent.note("files") == {"picture-1.png": b"\x89PNG\r\n\x1a\n".hex()}
    assert agent.note("prompt").endswith("The pictures are in the files picture-1.png.")


class Broken(ors.Environment):
    """Its pictures are base64 in lines, or none at all."""

    @classmethod
    @functools.cache
    def list_splits(cls) -> Any:
        return ["train"]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        return [{}]

    def get_prompt(self) -> Any:
        lines = base64.encodebytes(base64.b64decode(RED)).decode()
        pictures = ("\u00e9\u00e9\u00e9\u00e9", lines)
        return [ors.ImageBlock(data=one, mimeType="image/png") for one in pictures]

    @ors.tool
    def submit(self) -> ors.ToolOutput:
        """End."""
        return ors.ToolOutput(blocks=[], finished=True)


def test_a_picture_that_cannot_be_decoded_is_told(agent):
    with serve(Broken) as base_url:
        evaluate(base_url, "Broken", [0], agent.policy("look"), progress=False)
    assert agent.note("files") == {"picture-2.png": b"\x89PNG\r\n\x1a\n".hex()}
    assert agent.note("prompt").endswith(
        "The pictures are in the files picture-2.png.\n\n"
        "There is no file of picture 1: the data is not base64."
    )


WAYS = {
    # what it does: why the episode ends, its reward, the calls that ran
    "leave": ("policy_stopped", 0.0, []),
    "crash": ("error", None, ["add"]),
    "crash_after": ("finished", 1.0, ["submit"]),
    "fork": ("finished", 1.0, ["submit"]),
    "call_late": ("finished", 1.0, ["submit"]),
    "flood": ("finished", 1.0, ["submit"]),
    "spill": ("finished", 1.0, ["submit"]),
    "call_at_once": ("finished", 4.0, ["count", "count", "count", "submit"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_that_behaves_badly(contract, agent, way):
    reason, reward, tools = WAYS[way]
    episode = play_one(contract, agent.policy(way))
    assert (episode.stop_reason, episode.total_reward) == (reason, reward), episode
    assert [step.tool for step in episode.steps] == tools
    assert sum(contract.runs(tool) for tool in set(tools)) == len(tools)
    extra = episode.extra
    assert extra["exit_code"] == {"crash": 1, "crash_after": 3}.get(way, 0)
    assert not extra["ended"]
    if way == "crash":
        assert "ended with exit code 1" in episode.error
        assert "no model: [redacted]" in episode.error
    elif way == "call_late":
        assert [is_error for _, is_error in agent.said] == [False, True, True]
        assert all("episode is over" in text for text, _ in agent.said[1:])
    elif way == "flood":
        assert len(extra["stdout"]) < 1 << 17 > len(extra["stderr"])
        assert extra["stdout"].startswith("xxx")
        assert extra["stdout"].endswith("the end")
        assert "bytes left out" in extra["stdout"]
    elif way == "spill":
        assert "[redacted]\n[" in extra["stdout"]
        assert "sk-very" not in extra["stdout"]
    elif way == "call_at_once":
        assert sorted(text for text, _ in agent.said[:3]) == ["1", "2", "3"]
    assert KEY not in episode.to_json()
    contract.wait_for("teardown")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wait", "ignore", "call_slowly"])
def test_the_deadline_ends_an_agent(contract, agent, way):
    episode = play_one(contract, agent.policy(way), deadline=2.0)
    assert (episode.stop_reason, episode.total_reward) == ("deadline", 0.0)
    assert episode.extra["exit_code"] == (137 if way == "ignore" else 143)
    assert episode.extra["ended"]
    assert len(agent.notes) == 1


def test_an_agent_that_stays_after_the_end_is_ended(contract, agent):
    episode = play_one(contract, agent.policy("stay", exit_timeout=0.2))
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.0)
    assert (episode.extra["exit_code"], episode.extra["ended"]) == (143, True)


def test_a_limit_of_turns_is_told_to_an_agent(contract, agent):
    episode = play_one(contract, agent.policy("call_on"), max_turns=2)
    assert (episode.stop_reason, episode.total_reward) == ("max_turns", 1.0)
    assert [is_error for _, is_error in agent.said] == [False, False, True, True]
    assert "max_turns" in agent.said[-1][0]
    assert contract.runs("add") == 2


def test_an_outage_ends_an_agent(agent, contract, proxy):
    proxy.plan("/call", [Reset(Point.BEFORE_REPLY)])
    (episode,) = evaluate(
        proxy.url, "Contract", [0], agent.policy("call_on"), split="train"
    ).episodes
    assert (episode.stop_reason, episode.total_reward) == ("error", None)


def test_agents_play_together_and_with_every_function(contract, agent):
    policy = pickle.loads(pickle.dumps(agent.policy("submit")))
    episodes = asyncio.run(
        run_group(contract.base_url, "Contract", 0, policy, n=4, split="train")
    )
    with contextlib.closing(ORSEnv("Contract", contract.base_url)) as env:
        episodes.append(run_episode(env, policy, options={"task_index": 0}))
    assert [episode.total_reward for episode in episodes] == [1.0] * 5
    assert all(episode.extra["exit_code"] == 0 for episode in episodes)
    assert contract.runs("submit") == 5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_agent(contract, agent, tmp_path, number):
    program = tmp_path / "run.py"
    program.write_text(
        "import sys\n"
        "from ors_gym.evaluation import evaluate\n"
        "from ors_gym.rollout import CommandPolicy\n"
        "url, notes, *command = sys.argv[1:]\n"
        "policy = CommandPolicy(command, env={'NOTES': notes})\n"
        "evaluate(url, 'Contract', range(3), policy, split='train')\n"
    )
    command = [sys.executable, program, contract.base_url, tmp_path / "notes"]
    command += [sys.executable, "-S", AGENT, "ignore"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True) as run:
        wait_until(lambda: len(agent.notes) == 3)
        assert len(agent.alive) == 3
        os.killpg(run.pid, number)
        run.wait(60)
    wait_until(lambda: not agent.alive)


def test_an_agent_ends_with_its_guard(agent, tmp_path):
    async def kill() -> None:
        process = await AgentProcess.start(
            [sys.executable, "-S", str(AGENT), "ignore"],
            directory=tmp_path,
            env={"NOTES": str(tmp_path / "notes")},
            given=None,
            kept_bytes=100,
            redact=Redactor(),
            on_line=lambda line: None,
        )
        await asyncio.to_thread(wait_until, lambda: agent.alive)
        os.kill(process._process.pid, signal.SIGKILL)
        assert await process.wait(60)
        await asyncio.to_thread(wait_until, lambda: not agent.alive)

    asyncio.run(kill())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), "list of texts"),
        (([],), "list of texts"),
        (("claude 'x",), "cannot be read"),
        ((["no-such-program-at-all"],), "no program 'no-such-program-at-all'"),
        ((AgentProgram(command=("nothing",), install="get it"),), "install it: get it"),
        (([str(AGENT.parent)],), "no program"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(contract, arguments, said):
    kinds = (errors.InvalidRequestError, errors.MissingExtraError)
    with pytest.raises(kinds, match=said):
        play(contract, [0], CommandPolicy(*arguments))


@pytest.mark.usefixtures("many_descriptors")
def test_a_program_runs_beside_many_connections(tmp_path):
    async def run() -> tuple[int | None, str]:
        process = await AgentProcess.start(
            [sys.executable, "-S", "-c", "print(1)"],
            directory=tmp_path,
            env=dict(os.environ),
            given=None,
            kept_bytes=1000,
            redact=Redactor(),
            on_line=lambda _: None,
        )
        assert await process.wait(60)
        return process.exit_code, str(process.stdout) + str(process.stderr)

    assert asyncio.run(run()) == (0, "1\n")
