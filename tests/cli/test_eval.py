"""``eval``: what it plays, prints and keeps."""

import json
import sys
from typing import Any

import pytest

from ors_gym.cli import main
from ors_gym.display._terminal import say
from ors_gym.evaluation import Evaluation, EvaluationLogger
from ors_gym.rollout import Turn
from tests.cli.running import evaluate, run
from tests.evaluation.contract_evaluations import unfold
from tests.rollout.chat_server import running_chat_server
from tests.support.slow_cases import on_one_sdk
from tests.support.virtual_environments import ROOT


def test_eval_again_plays_nothing_twice(server, evaluated):
    assert server.runs("submit") == 6
    again = evaluate(server, evaluated.parent, "answer", "run.jsonl")
    assert server.runs("submit") == 6
    assert again["head"]["policy"] == "players:answer"
    assert again["metrics"]["outcomes"] == 6
    assert 0 < again["metrics"]["success_rate"] < 1
    assert again["by_tool"][0]["calls"] == 6
    assert server.open_sessions() == set()


def test_eval_without_an_outcome_fails(server, evaluated):
    found = evaluate(server, evaluated.parent, "broken", "other.jsonl", code=1)
    assert found["metrics"]["errors/policy"] == 6


def test_eval_without_a_readable_call_fails(server, evaluated):
    folder = evaluated.parent
    command = ("eval", "contract", "--url", server.base_url, "--tasks", "2")
    for policy, said in (
        ("mute", '2 of 2 episodes ended without a readable call; the first was "gues'),
        ("forgetful", "None in place of a first call in all 2 episodes, which gives u"),
    ):
        done = run(*command, "--policy", f"players:{policy}", cwd=folder, code=1)
        assert said in unfold(done.stdout)
        assert "success rate    0.0%" in done.stdout


@pytest.mark.slow
@on_one_sdk
def test_eval_of_a_split_and_a_range(server):
    done = run(
        *("eval", "ors/contract", "--url", server.base_url, "--split", "test"),
        *("--tasks", "1:3", "--max-turns", "1", "--episodes-per-task", "2"),
        *("--policy", "tests.cli.test_eval:submit"),
        fresh=True,
    )
    assert "contract, split test" in done.stdout
    tasks = [entry["task"] for entry in server.log("run")]
    assert sorted(tasks) == ["test-1", "test-1", "test-2", "test-2"]


def charge(episode):
    usage = {"input_tokens": 4, "output_tokens": 6}
    return Turn(submit(episode), extra={"usage": usage, "model": "m"})


def test_eval_ends_at_a_limit_and_says_so(contract, tmp_path, capsys):
    command = (
        *("eval", "contract", "--url", contract.base_url, "--max-concurrent", "1"),
        *("--policy", "tests.cli.test_eval:charge", "--episodes-per-task", "4"),
    )
    prices = tmp_path / "prices.json"
    prices.write_text('{"m": {"input": 1e6, "output": 0}}')
    for limit, told in (
        (("--max-cost", "7", "--prices", str(prices)), "max_cost: 8 of 7 used"),
        (("--max-tokens", "11"), "max_tokens: 20 of 11 used"),
    ):
        done = run(*command, *limit, code=1)
        assert f"stopped         {told}" in done.stdout
        assert "input_tokens 8, output_tokens 12" in done.stdout
    done = run(*command, "--max-seconds", "600", "--max-outages", "3", "--json")
    assert json.loads(done.stdout)["usage"]["input_tokens"] == 4 * 4 * 12
    with pytest.raises(SystemExit):
        main([*command, "--prices", "no-such-file"])
    assert "no-such-file holds no prices" in capsys.readouterr().err


@pytest.mark.slow
@on_one_sdk
def test_eval_plays_with_an_agent(server, tmp_path):
    agent = ROOT / "tests" / "agents" / "small_agent.py"
    notes = tmp_path / "notes"
    notes.touch()
    programs = tmp_path / "mine.toml"
    command = [sys.executable, "-S", str(agent), "play"]
    programs.write_text(
        f"[mine]\ncommand = {command}\n[mine.usage]\nline = {{type = 'used'}}\n"
        "input_tokens = ['tokens.in']\n"
    )
    done = run(
        *("eval", "contract", "--url", server.base_url, "--tasks", "1"),
        *("--agent", "mine", "--agent-programs", programs, "--deadline", "60"),
        *("--agent-env", f"NOTES={notes}", "--agent-env", "PATH"),
        *("--output", "run.jsonl"),
        cwd=tmp_path,
        fresh=True,
    )
    assert "success rate    100.0%" in done.stdout
    assert "input_tokens 11" in done.stdout
    head, row = map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines())
    assert head["policy"].startswith("python")
    assert row["usage"] == {"input_tokens": 11}
    assert "exit_code" in row["trajectory"]["extra"]
    assert not done.stderr.count("Task was destroyed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--agent", "claude", "--policy", "reference"), "not allowed with"),
        (("--agent-env", "NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE is not set"),
        (("--agent-env", "MY_API_KEY=x"), "could read the value of MY_API_KEY"),
        (("--agent-programs", "none.toml"), "none.toml: "),
    ],
)
def test_eval_refuses_arguments_of_an_agent(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(["eval", "math", *arguments])
    assert said in capsys.readouterr().err


def test_eval_refuses_a_negative_seed():
    done = run("eval", "math", "--seed", "-1", "--tasks", "1", code=1)
    assert "the seed must be at least 0, not -1" in done.stderr
    assert not done.stdout


def submit(episode: Any) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": "4"}}


@pytest.mark.slow
def test_eval_says_what_came_of_the_calls_and_which_file_it_wrote(server, tmp_path):
    """Calls that the server refuses, and rewards that no interval may leave."""
    output = tmp_path / "run.jsonl"
    options = (
        *("eval", "contract", "--url", server.base_url, "--tasks", "3"),
        *("--policy", "tests.cli.test_eval:add_words", "--max-turns", "4"),
        *("--output", str(output)),
    )
    done = run(*options, "--reward-range", "0:2")
    for said in (
        "WARNING         7 of 12 calls were refused. The first, of add: Tool input\n",
        "success means   finished and total_reward > 0",
        "reward interval bootstrap, rewards within 0 and 2",
        "rewards         0.5 in 2, 1.5 in 1",
        "add: 12 calls, 7 refused",
    ):
        assert said in done.stdout
    told = done.stderr.partition("to see its episodes: ors-gym ")[2].split()
    assert f"wrote {output}\n" in done.stderr
    assert run(*told).stdout == done.stdout
    assert output.with_suffix(".html").exists()
    # The file says the same as the run that wrote it.
    assert run("report", str(output)).stdout == done.stdout
    found = Evaluation.load(output).metrics("")
    assert (found["invalid_calls"], found["tools/add/invalid"]) == (7, 7)
    with pytest.raises(SystemExit):
        run(*options, "--reward-range", "2:0")


def add_words(episode: Any) -> dict[str, Any]:
    """Call a tool in a way that its validator accepts in the end."""
    right = len(episode.steps) > 2 or (episode.task_index == 0 and episode.steps)
    given = {"a": 1, "b": 2} if right else {"a": "one", "b": 2}
    return {"tool": "add", "input": given}


class Printer(EvaluationLogger):
    """A logger of the user's own."""

    def end(self, evaluation: Evaluation) -> None:
        say(f"logged {evaluation.outcomes} outcomes")


@pytest.mark.parametrize(
    ("logger", "code", "said"),
    [
        ("tests.cli.test_eval:Printer", 0, "logged 2 outcomes"),
        ("nowhere", 1, "there is no logger 'nowhere'; pass wandb, mlflow, openreward"),
        ("tests.cli.test_eval:Nobody", 1, "the logger 'tests.cli.test_eval:Nobody'"),
        ("tests.cli.test_eval:__name__", 1, "cannot be called"),
    ],
)
def test_eval_logs_to_what_is_named(server, logger, code, said):
    done = run(
        *("eval", "contract", "--url", server.base_url, "--tasks", "2"),
        *("--policy", "tests.cli.test_eval:submit", "--log-to", logger),
        code=code,
    )
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("policy", ["random", "reference"])
def test_eval_of_a_bundled_environment(policy):
    done = run("eval", "math", "--policy", policy, "--tasks", "4", "--json")
    rate = json.loads(done.stdout)["metrics"]["success_rate"]
    assert rate == (1.0 if policy == "reference" else 0.0)


def test_eval_of_a_chat_model(server):
    answer = ["c1", "submit", json.dumps({"answer": "0"})]
    with running_chat_server() as chat:
        model = chat.script({"calls": [answer]})
        done = run(
            *("eval", "contract", "--url", server.base_url, "--tasks", "1", "--json"),
            *("--policy", f"openai:{model}", "--model-url", chat.base_url),
        )
        assert len(chat.requests(model)) == 1
    value = json.loads(done.stdout)
    assert value["head"]["policy"] == f"openai:{model}"
    assert value["metrics"]["success_rate"] == 1.0
