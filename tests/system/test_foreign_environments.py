"""Environments as other people write them, through every door of the package."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import gymnasium
import httpx
import pytest
from gymnasium.utils.env_checker import check_env

import ors_gym
from ors_gym.evaluation import evaluate
from ors_gym.formats import render_text
from ors_gym.formats._messages import join_system_messages
from ors_gym.rollout import (
    Episode,
    LiveEpisode,
    connect,
    random_policy,
    run_episode,
)
from ors_gym.testing import check_server
from ors_gym.wrappers import DiscreteTools
from tests.cli.running import run
from tests.support.servers.process import RunningServer

CELL: Final = {"type": "integer", "minimum": 0, "maximum": 3}
BOARD: Final[Any] = {
    "move": {"direction": {"enum": ["up", "down", "left", "right"]}},
    "jump": {"row": CELL, "column": CELL},
}


def make(server: RunningServer, name: str, **arguments: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(
        "ors/remote", env_name=name, base_url=server.base_url, **arguments
    )


def play(env: gymnasium.Env[Any, Any], steps: int = 100) -> list[dict[str, Any]]:
    """Play random actions up to the end of an episode; return the infos."""
    env.action_space.seed(0)
    env.reset(seed=0)
    infos: list[dict[str, Any]] = []
    for _ in range(steps):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        infos.append(info)
        if terminated or truncated:
            return infos
    raise AssertionError(f"the episode did not end: {infos[-1]}")


ESSAY: Final[Any] = pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action_mode": "text"},
        {"observation_mode": "dict"},
        {"terminal_tool_as": "text"},
        {"terminal_tool_as": "tool"},
    ],
)


@ESSAY
def test_an_episode_whose_only_tool_is_terminal_is_sampled_to_its_end(
    newest, closing, arguments
):
    env = closing(make(newest, "Essay", **arguments))
    (info,) = play(env)
    assert (info["tool"], info["error_kind"]) == ("submit", "")
    assert newest.runs("submit") == 1
    call = {"tool": "submit", "input": {"answer": "0"}}
    assert env.unwrapped.terminal_tool["name"] == "submit"
    if "action_mode" not in arguments:
        assert call in env.action_space
        assert {"tool": "submit", "input": {}} not in env.action_space
    env.reset(options={"task_index": 0})
    _, reward, terminated, _, info = env.step("0")
    heard = arguments.get("terminal_tool_as") != "tool"
    assert (reward, terminated, bool(info["error"])) == (heard, heard, not heard)


def test_the_checker_of_gymnasium_accepts_it(newest, closing):
    check_env(closing(make(newest, "Essay")).unwrapped, skip_render_check=True)


def test_a_vector_env_of_a_terminal_tool(newest, closing):
    envs = closing(ors_gym.ORSVectorEnv("Essay", newest.base_url, num_envs=3))
    envs.action_space.seed(0)
    envs.reset(seed=0)
    *_, terminations, _, infos = envs.step(envs.action_space.sample())
    assert terminations.all()
    assert list(infos["tool"]) == ["submit"] * 3
    envs.reset(seed=0)
    assert envs.step(["0", "2", "4"])[1].tolist() == [1.0, 1.0, 1.0]


def test_a_terminal_tool_among_numbered_calls(newest, closing):
    table = {"submit": {"answer": {"enum": ["0", "2", "4"]}}}
    env = closing(DiscreteTools(make(newest, "Essay", tool_schemas=table)))
    _, info = env.reset(seed=1)
    assert info["action_mask"].tolist() == [1, 1, 1]
    assert env.step(1)[1] == 1.0


@pytest.mark.parametrize("how", ["both", "tool", "text"])
def test_policies_are_offered_a_terminal_tool_as_the_user_chooses(newest, how):
    offered: list[int] = []

    def policy(episode: Any) -> str:
        offered.append(len(ors_gym.formats.to_openai_tools(episode.tools)))
        return str(2 * episode.task_index)

    found = evaluate(
        *(newest.base_url, "Essay", range(2), policy),
        terminal_tool_as=how,
        progress=False,
    )
    assert set(offered) == {0 if how == "text" else 1}
    assert found.success_rate == (0.0 if how == "tool" else 1.0)


def test_a_random_policy_ends_it(newest):
    found = evaluate(
        *(newest.base_url, "Essay", range(3), random_policy(0)), progress=False
    )
    assert found.stop_reasons == {"finished": 3}


def test_the_contract_check_plays_a_terminal_tool(newest):
    report = check_server(newest.base_url, "Essay")
    said = report["terminal tool"]
    assert (said.status, report["tool schemas"].status) == ("pass", "pass")
    assert "submit" in said.detail
    skipped = {n for n, status in report.statuses.items() if status == "skipped"}
    assert skipped <= {"pings during a call", "heartbeats", "refused calls"}, str(
        report
    )


def test_the_command_line_lists_and_plays_a_terminal_tool(newest):
    url = newest.base_url
    assert "tool submit(answer: string), or plain text" in run("list", url).stdout
    done = run("eval", "Essay", "--url", url, "--tasks", "2", "--json")
    assert json.loads(done.stdout)["stop_reasons"] == {"finished": 2}


def refused(infos: list[dict[str, Any]]) -> int:
    return sum(info["error_kind"] == "invalid_action" for info in infos)


@pytest.mark.parametrize("mode", ["tool_call", "text"])
@pytest.mark.parametrize("observed", ["text", "dict"])
def test_narrowed_schemas_are_sampled_and_never_refused(
    server, closing, mode, observed
):
    modes: Any = {"action_mode": mode, "observation_mode": observed}
    env = closing(make(server, "Board", **modes, max_episode_steps=20))
    assert refused(play(env)) == 20
    env = closing(make(server, "Board", tool_schemas=BOARD, **modes))
    infos = play(env, 500)
    assert refused(infos) == 0
    assert {info["tool"] for info in infos} == {"move", "jump"}


def test_narrowed_schemas_in_the_space_and_in_numbers(server, closing):
    env = closing(make(server, "Board", tool_schemas=BOARD))
    north = {"tool": "move", "input": {"direction": "north"}}
    assert north not in env.action_space
    numbered = DiscreteTools(env)
    assert len(numbered.calls) == 4 + 4 * 4
    numbered.reset(seed=0)
    corner: Any = {"tool": "jump", "input": {"row": 3, "column": 3}}
    assert numbered.step(numbered.calls.index(corner))[2]
    envs = closing(
        ors_gym.ORSVectorEnv("Board", server.base_url, num_envs=2, tool_schemas=BOARD)
    )
    assert north not in envs.single_action_space
    envs.reset(seed=0)
    *_, infos = envs.step(envs.action_space.sample())
    assert list(infos["error_kind"]) == ["", ""]


def test_narrowed_schemas_in_evaluations_and_on_the_command_line(server, tmp_path):
    url, table = server.base_url, json.dumps(BOARD)
    plain = evaluate(url, "Board", [0], random_policy(0), max_turns=20, progress=False)
    (episode,) = plain.episodes
    assert episode.metrics()["invalid_actions"] == 20
    assert plain.metrics()["eval/invalid_calls"] == 20
    assert plain.warnings[0].startswith("20 of 20 calls were refused. The first, of ")
    assert "must be " in plain.warnings[0]
    # Its lines are folded.
    assert f"WARNING {plain.warnings[0]}" in " ".join(str(plain).split())
    found = evaluate(
        *(url, "Board", [0], random_policy(0)),
        max_turns=500,
        tool_schemas=BOARD,
        output=tmp_path / "run.jsonl",
        progress=False,
    )
    assert found.stop_reasons == {"finished": 1}
    assert found.warnings == []
    with pytest.raises(ors_gym.InvalidRequestError, match="tool_schemas"):
        evaluate(
            *(url, "Board", [0], random_policy(0)),
            max_turns=500,
            output=tmp_path / "run.jsonl",
            progress=False,
        )
    (tmp_path / "table.json").write_text(table)
    for given in (table, f"@{tmp_path / 'table.json'}"):
        done = run(
            *("eval", "board", "--url", url, "--tasks", "1", "--max-turns", "500"),
            *("--tool-schemas", given, "--json"),
        )
        assert json.loads(done.stdout)["stop_reasons"] == {"finished": 1}
    with pytest.raises(SystemExit):
        run("eval", "board", "--url", url, "--tool-schemas", '{"move": 1}')


def test_an_env_whose_calls_are_mostly_refused_warns_once(server, closing):
    """Training with any framework would go on for hours, and learn nothing."""
    env = closing(make(server, "Board"))
    env.action_space.seed(0)
    with pytest.warns(UserWarning) as warned:
        for _ in range(4):
            env.reset()
            for _ in range(10):
                env.step(env.action_space.sample())
    (said,) = [str(one.message) for one in warned]
    assert "25 of 25 calls of an env of board were refused. The first: " in said
    assert "must be " in said and "tool_schemas=" in said
    fine = closing(make(server, "Contract"))
    fine.reset()
    for number in range(60):
        # A policy that is wrong half of the time is only a bad policy.
        given = {"a": 1, "b": 2} if number % 2 == 0 else {"a": "one"}
        fine.step({"tool": "add", "input": given})


def test_a_conversation_keeps_its_roles_and_is_asked_for_once(newest, closing):
    env = closing(make(newest, "Interview"))
    episode = run_episode(
        env, lambda episode: {"tool": "submit", "input": {"answer": "4"}}, seed=2
    )
    messages = episode.messages()
    roles = ["system", "user", "assistant", "tool", "user", "assistant", "tool"]
    assert [message["role"] for message in messages] == roles
    assert messages[2]["tool_calls"][0]["function"]["name"] == "submit"
    assert (messages[3]["tool_call_id"], messages[3]["content"]) == ("c1", "wrong")
    assert messages[2]["reasoning_content"] == "Let me try."
    assert messages[4]["content"] == "2 + 2 = ?"
    assert episode.messages("ors")[2]["blocks"][0]["type"] == "reasoning"
    assert Episode.from_json(episode.to_json()) == episode
    # Whoever asks again is told the same, and an observation is the same as text.
    assert len(newest.log("prompt")) == 1
    env.reset(options={"task_index": 2})
    with ors_gym.ORSClient(newest.base_url) as client:
        task: Any = {"split": "train", "index": 2}
        with client.session("Interview", **task) as session:
            conversation, prompt = session.get_messages(), session.get_prompt()
            assert (session.get_messages(), session.get_prompt()) == (
                conversation,
                prompt,
            )
            assert len(newest.log("prompt")) == 3
            path = f"{newest.base_url}/interview/prompt"
            headers = {"X-Session-ID": session.session_id or ""}
            assert httpx.get(path, headers=headers).json() == prompt
    assert env.unwrapped.conversation == conversation
    found = evaluate(
        *(newest.base_url, "Interview", range(2), random_policy(0)), progress=False
    )
    assert found.episodes[0].messages()[:2] == messages[:2]


def test_of_a_prompt_and_a_conversation_only_the_conversation_is_asked_for(
    newest, closing
):
    env = closing(make(newest, "Tutor"))
    observation, _ = env.reset(options={"task_index": 2})
    assert observation.startswith("[system]\n\nBe brief.\n\n[user]\n\nIs it 7?")
    assert len(env.unwrapped.conversation) == 4
    with ors_gym.ORSClient(newest.base_url) as client:
        task: Any = {"split": "train", "index": 2}
        with client.session("Tutor", **task) as session:
            assert render_text(session.get_prompt()) == observation
            assert session.get_messages() == env.unwrapped.conversation
    assert len(newest.log("prompt")) == 2
    assert not newest.log("plain prompt")


SLOW: Final[Any] = {"task_spec": {"id": "slow", "setup_seconds": 0.3}}
"""Its set-up lasts until whoever asks for the prompt is there."""


@pytest.mark.parametrize("attached", [False, True])
def test_threads_that_ask_at_once_ask_the_server_once(server, attached):
    with (
        ors_gym.ORSClient(server.base_url) as owner,
        ors_gym.ORSClient(server.base_url) as client,
        owner.session("Nim", **SLOW) as session,
        ThreadPoolExecutor(4) as pool,
    ):
        together = threading.Barrier(4)

        def ask(number: int) -> Any:
            together.wait()
            if attached:
                return client.get_prompt(session.session_id, "Nim")
            if number % 2:
                return session.get_messages()[0]["blocks"]
            return session.get_prompt()

        first, *others = pool.map(ask, range(4))
    assert others == [first] * 3
    assert [entry["games"] for entry in server.log("prompt")] == [1]


def test_tasks_that_ask_at_once_ask_the_server_once_and_one_may_give_up(server):
    async def work() -> Any:
        async with (
            ors_gym.AsyncORSClient(server.base_url) as client,
            client.session("Nim", **SLOW) as session,
        ):
            given_up = asyncio.ensure_future(session.get_prompt())
            await asyncio.sleep(0)
            asking = [session.get_prompt(), session.get_messages()]
            others = asyncio.gather(*asking)
            await asyncio.sleep(0)
            given_up.cancel()
            prompt, conversation = await others
            with pytest.raises(asyncio.CancelledError):
                await given_up
            return prompt == conversation[0]["blocks"]

    assert asyncio.run(work())
    assert len(server.log("prompt")) <= 2
    server.mark()

    async def ask_all() -> list[Any]:
        async with (
            ors_gym.AsyncORSClient(server.base_url) as client,
            client.session("Nim", **SLOW) as session,
        ):
            return await asyncio.gather(*(session.get_prompt() for _ in range(4)))

    first, *others = asyncio.run(ask_all())
    assert others == [first] * 3
    assert [entry["games"] for entry in server.log("prompt")] == [1]


def test_a_framework_of_its_own_loop_is_given_the_roles(newest):
    async def start() -> list[Any]:
        async with (
            connect(newest.base_url) as client,
            LiveEpisode(client, "Interview", 0) as live,
        ):
            return await live.start()

    messages = asyncio.run(start())
    joined = join_system_messages([{"role": "system", "content": "Mine."}], messages)
    assert joined[0] == {"role": "system", "content": "Mine.\n\nBe brief."}
    assert joined[1:] == messages[1:]
    assert [one["role"] for one in messages[:3]] == ["system", "user", "assistant"]


def test_the_contract_check_tells_of_constraints_in_validators(server):
    report = check_server(server.base_url, "Board")
    said = report["refused calls"]
    assert said.status == "warn"
    assert "no call of move ever ran: of 4, 4 refused" in said.detail
    assert "must be one of up, down, left, right" in said.detail
    assert "suggest_schemas" in said.fix
    report = check_server(server.base_url, "Board", tool_schemas=BOARD)
    assert report["refused calls"].status == "pass"


def test_a_tool_that_nobody_lists_is_told(server, closing):
    env = closing(make(server, "Board", tool_schemas={"moev": {}}).unwrapped)
    with pytest.warns(UserWarning, match="moev, which .* does not list; it lists"):
        env.reset(seed=0)
    env.reset(seed=0)
