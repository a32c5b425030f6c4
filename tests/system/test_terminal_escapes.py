"""A server's text reaches a terminal and a page without what steers them."""

from pathlib import Path
from typing import Any

import pytest

import ors_gym
from ors_gym._shown_text import clean
from ors_gym.evaluation import evaluate
from ors_gym.rollout import run_episode
from tests.cli.running import run
from tests.support.servers.process import RunningServer

SAID = "\x1b[2J\x1b]0;owned\x07 \x9b31m\x00 \u202egnp.exe\u2066 100%d"
SHOWN = clean(SAID)
FAIL = {"tool": "fail", "input": {"message": SAID}}
ECHO = {"tool": "echo", "input": {"text": SAID}}
BROKEN = {"id": "x", "setup_error": SAID}


def check_shown(text: str) -> None:
    assert clean(text) == text
    assert "gnp.exe" in text


@pytest.mark.parametrize("mode", ["ansi", "human"])
def test_an_episode(server: RunningServer, mode: str, capsys, closing) -> None:
    env = closing(ors_gym.ORSEnv("contract", server.base_url, render_mode=mode))
    env.reset(seed=0)
    for action in (ECHO, FAIL):
        observation, *_ = env.step(action)
        # A model gets what the server said, to the last character.
        assert SAID in observation
        rendered = env.render()
        check_shown(capsys.readouterr().out if rendered is None else rendered)


def test_an_error(server: RunningServer) -> None:
    with ors_gym.ORSClient(server.base_url) as client:
        with client.session("contract", split="train", index=0) as session:
            with pytest.raises(ors_gym.ToolFailedError) as failed:
                session.call_tool("fail", {"message": SAID})
            assert SAID in failed.value.message
        with (
            client.session("contract", BROKEN) as session,
            pytest.raises(ors_gym.SetupFailedError) as broken,
        ):
            session.get_prompt()
    for error in (failed.value, broken.value):
        check_shown(str(error))
        check_shown(repr(error))


def test_an_evaluation(server: RunningServer, tmp_path: Path) -> None:
    def fail_once(episode: Any) -> Any:
        return None if episode.steps else FAIL

    output = tmp_path / "run.jsonl"
    evaluation = evaluate(
        *(server.base_url, "contract", range(2), fail_once),
        on_tool_error="raise",
        output=output,
        progress=False,
    )
    check_shown(str(evaluation))
    check_shown(evaluation._repr_html_())
    run("report", str(output), "--html", "page.html", cwd=tmp_path)
    check_shown((tmp_path / "page.html").read_text())
    for command in ("report", "show"):
        check_shown(run(command, str(output), cwd=tmp_path).stdout)


def test_an_episode_of_a_rollout(server: RunningServer, closing) -> None:
    env = closing(ors_gym.ORSEnv("contract", server.base_url))
    episode = run_episode(env, lambda episode: None if episode.steps else ECHO)
    assert episode.steps[0].blocks[0]["text"] == SAID
    check_shown(episode._repr_html_())


def test_a_vector_env_that_cannot_start(server: RunningServer, closing) -> None:
    tasks = [{"id": "fine"}, BROKEN]
    envs = closing(ors_gym.ORSVectorEnv("contract", server.base_url, 2, tasks=tasks))
    with pytest.warns(UserWarning, match="could not start") as told:
        envs.reset(seed=0)
    check_shown(str(told[0].message).removeprefix("\x1b[33m").removesuffix("\x1b[0m"))
