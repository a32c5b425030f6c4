"""verifiers running episodes of its own `Env`, on real servers, with a scripted model.

The model's answers come over HTTP from another process, through the server with which
verifiers intercepts what a harness asks.
"""

import asyncio
import hashlib
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import verifiers.v1 as vf
from pydantic import ValidationError

from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.integrations import verifiers as adapter
from ors_gym.rollout import ChatPolicy
from tests.rollout.chat_server import ChatServer, running_chat_server
from tests.support.servers.process import start_server

GROUP = "agents"
SECRET = "s3cret-of-the-task"
PLUGIN = "ors_tasks"
ADD = {"calls": [["a", "add", '{"a": 1, "b": 2}']]}
SUBMIT = {"calls": [["b", "submit", '{"answer": "0"}']]}
TOO_LONG = [400, {"error": {"message": "?", "code": "context_length_exceeded"}}, {}]
REFUSED = [400, {"error": {"message": "no such model"}}, {}]


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with running_chat_server() as server:
        yield server


@pytest.fixture(autouse=True)
def plugin(documented, monkeypatch) -> None:
    """Write the module that users write."""
    module = types.ModuleType(PLUGIN)
    exec(documented("ors_tasks.py"), vars(module))
    module.__spec__ = types.SimpleNamespace(name=PLUGIN)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, PLUGIN, module)


def make_env(base_url: str, *, taskset: Any = None, **settings: Any) -> vf.Env:
    given = {"env_name": "Contract", "base_url": base_url, "tasks": [0]}
    given |= {"id": PLUGIN, **(taskset or {})}
    return vf.load_environment(vf.resolve_env_config({"taskset": given, **settings}))


def play(env: vf.Env, chat: ChatServer, model: str, episodes: int = 1) -> Any:
    client = vf.EvalClientConfig(base_url=chat.base_url, api_key_var="NO_SUCH_KEY")
    context = vf.ModelContext(model=model, client=client)

    async def run() -> Any:
        async with env.serving():
            (task,) = env.taskset
            slots = env.slots(task, episodes)
            return await asyncio.gather(*(env.run_slot(one, context) for one in slots))

    played = asyncio.run(run())
    return played if episodes > 1 else played[0]


def test_a_model_plays_with_the_tools_of_the_session(tidy_server, chat):
    model = chat.script(ADD, {"text": "I think it is 3."}, SUBMIT)
    episode = play(make_env(tidy_server.base_url), chat, model)
    assert episode.ok and not episode.errors
    (trace,) = episode.traces
    assert trace.reward == 1.5 == sum(filter(None, tidy_server.rewards()))
    assert set(trace.rewards) == {"ors"}
    assert [trace.metrics["turns"], trace.metrics["finished"]] == [3.0, 1.0]
    assert trace.state.turn_rewards == [0.5, 0.0, 1.0]
    (branch,) = trace.branches
    assert [m.role for m in branch.messages] == [
        *("user", "assistant", "tool", "assistant", "user", "assistant")
    ]
    assert branch.messages[2].content == "3"
    offered = chat.requests(model)[0]["body"]["tools"]
    assert "submit" in {tool["function"]["name"] for tool in offered}


def test_a_prompt_with_roles_keeps_them(newest, chat):
    answer = {"calls": [["b", "submit", '{"answer": "4"}']]}
    # The model's server counts the assistant's turns, of which there is one already.
    model = chat.script({}, answer)
    taskset = {"env_name": "Interview", "tasks": [2]}
    episode = play(make_env(newest.base_url, taskset=taskset), chat, model)
    (trace,) = episode.traces
    assert trace.reward == 1.0
    (branch,) = trace.branches
    roles = ["system", "user", "assistant", "tool", "user", "assistant"]
    assert [message.role for message in branch.messages] == roles
    assert branch.messages[2].reasoning_content == "Let me try."
    sent = chat.requests(model)[0]["body"]["messages"]
    assert [message["role"] for message in sent] == roles[:-1]
    assert sent[2]["reasoning_content"] == "Let me try."
    assert sent[2]["tool_calls"][0]["id"] == sent[3]["tool_call_id"] == "c1"
    assert (sent[3]["content"], sent[4]["content"]) == ("wrong", "2 + 2 = ?")
    assert len(newest.log("prompt")) == 1


def test_episodes_at_once_are_sessions_of_their_own(tidy_server, chat):
    model = chat.script(ADD, SUBMIT)
    episodes = play(make_env(tidy_server.base_url), chat, model, episodes=3)
    assert [one.traces[0].reward for one in episodes] == [1.5] * 3
    assert tidy_server.runs("submit") == 3


def test_a_limit_of_verifiers_ends_an_episode_that_keeps_its_reward(tidy_server, chat):
    taskset = {"arguments": {"nonterminal_reward": -0.25}}
    agent = {"max_turns": 2}
    env = make_env(tidy_server.base_url, taskset=taskset, agent=agent)
    episode = play(env, chat, chat.script(ADD, ADD, ADD))
    assert episode.ok
    (trace,) = episode.traces
    assert trace.stop_condition == "max_turns"
    assert trace.reward == 0.5 * tidy_server.runs("add") - 0.25 == 0.75


def test_a_full_context_ends_an_episode(one_server, chat):
    model = chat.script(ADD, {"failures": [TOO_LONG] * 9})
    episode = play(make_env(one_server.base_url), chat, model)
    assert episode.ok
    assert episode.traces[0].reward == 0.5


def test_a_failing_model_is_no_outcome(tidy_server, chat):
    model = chat.script(ADD, {"failures": [REFUSED] * 9})
    episode = play(make_env(tidy_server.base_url), chat, model)
    (trace,) = episode.traces
    assert not episode.ok and not trace.rewards
    assert trace.last_error.type == "ProviderError"
    assert trace.state.reward is None


def test_an_outage_is_repaired_or_no_reward_and_no_text(chat, monkeypatch):
    broken: list[bool] = []
    with start_server("ors-sdk-0.1.0") as server:

        class Breaking(ChatPolicy):
            async def __call__(self, episode: Any) -> Any:
                if episode.turns and not broken:
                    broken.append(True)
                    server.restart()
                    server.mark()
                return await super().__call__(episode)

        monkeypatch.setattr(adapter, "ChatPolicy", Breaking)
        model = chat.script(ADD, SUBMIT)
        once = {"arguments": {"attempts": 1}}
        episode = play(make_env(server.base_url, taskset=once), chat, model)
        (trace,) = episode.traces
        assert not episode.ok and not trace.rewards and trace.reward == 0.0
        assert "SessionLostError" in trace.last_error.message
        assert trace.state.reward is None
        assert "session" not in str(chat.requests(model)[-1]["body"]["messages"])

        broken.clear()
        env = make_env(server.base_url, taskset=once, retries={"max_retries": 1})
        episode = play(env, chat, model)
        assert episode.ok
        assert episode.traces[0].reward == 1.5
        assert "SessionLostError" in episode.errors[0].message

        broken.clear()
        episode = play(make_env(server.base_url), chat, model)
        assert episode.ok and not episode.errors
        (trace,) = episode.traces
        assert trace.reward == 1.5
        assert trace.state.turn_rewards == [0.5, 1.0]
        # The model is asked for nothing twice.
        assert len(trace.branches) == 1
        assert server.open_sessions() == set()


def test_a_cancelled_episode_keeps_what_it_earned_and_closes_its_session(
    tidy_server, chat, monkeypatch
):
    state = adapter.ORSState()
    env = make_env(tidy_server.base_url)
    model = chat.script(ADD, {"hang": True})

    async def run() -> None:
        waiting = asyncio.Event()

        class Telling(ChatPolicy):
            async def __call__(self, episode: Any) -> Any:
                if episode.turns:
                    waiting.set()
                return await super().__call__(episode)

        monkeypatch.setattr(adapter, "ChatPolicy", Telling)
        (task,) = env.taskset
        harness: Any = adapter.ORSHarness(vf.HarnessConfig(id=PLUGIN))
        context: Any = types.SimpleNamespace(model=model)
        trace = types.SimpleNamespace(state=state, stop_condition=None)
        playing = asyncio.ensure_future(
            harness.launch(context, trace, None, chat.base_url, "k", {}, task.data)
        )
        await asyncio.wait_for(waiting.wait(), 60)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(run())
    assert state.reward == 0.5


def test_secrets_reach_the_environment_and_no_trace(one_server, chat, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_THE_TASK", SECRET)
    taskset = {"secrets_from_env": {"TOKEN": "TOKEN_OF_THE_TASK"}}
    env = make_env(one_server.base_url, taskset=taskset)
    episode = play(env, chat, chat.script(SUBMIT))
    assert episode.ok
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert one_server.log("construct")[-1]["secrets"] == {"TOKEN": digest}
    assert SECRET not in episode.model_dump_json()
    (task,) = env.taskset
    pickled = pickle.dumps(task)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).key == "Contract/train#0"


def test_a_secret_that_is_not_set_fails_the_trace(one_server, chat):
    taskset = {"secrets_from_env": {"TOKEN": "NO_SUCH_VARIABLE"}}
    env = make_env(one_server.base_url, taskset=taskset)
    episode = play(env, chat, chat.script(SUBMIT))
    assert not episode.ok
    assert "NO_SUCH_VARIABLE" in episode.traces[0].last_error.message


@pytest.mark.parametrize("name", ["api_key", "headers", "secrets", "client_options"])
def test_what_is_secret_is_no_argument(name):
    with pytest.raises(ValidationError, match="ORS_API_KEY") as caught:
        adapter.ORSTasksetConfig(id=PLUGIN, arguments={name: "x"})
    assert name in str(caught.value)


def test_the_taskset_names_tasks_and_holds_none(one_server):
    taskset = {"env_name": "contract", "split": "test", "tasks": None}
    tasks = list(make_env(one_server.base_url, taskset=taskset).taskset)
    assert [task.data.task_index for task in tasks] == list(range(len(tasks)))
    assert len(tasks) > 1
    assert len({task.key for task in tasks}) == len(tasks)
    assert tasks[1].key == "contract/test#1"
    assert set(tasks[0].data.model_dump(exclude_defaults=True)) == {
        *("idx", "name", "prompt", "env_name", "split", "task_index", "base_url")
    }


def test_a_taskset_without_an_environment_or_split_says_so(one_server):
    with pytest.raises(InvalidRequestError, match="env-name"):
        list(make_env(one_server.base_url, taskset={"env_name": ""}).taskset)
    with pytest.raises(UnknownTaskError):
        list(make_env(one_server.base_url, taskset={"split": "nowhere"}).taskset)


def test_another_harness_gets_no_reward(one_server):
    (task,) = make_env(one_server.base_url).taskset
    trace: Any = types.SimpleNamespace(state=adapter.ORSState())
    with pytest.raises(InvalidRequestError, match="ORSHarness"):
        asyncio.run(task.ors(trace))


def test_the_documented_block_runs(documented, bundled, chat, monkeypatch, capsys):
    monkeypatch.setenv("ORS_BASE_URL", bundled)
    answer = {"calls": [["a", "submit", '{"answer": "no number"}']]}
    given = {"model": chat.script(answer), "model_url": chat.base_url}
    exec(documented("runs with verifiers 0.4.0"), given)
    assert capsys.readouterr().out.strip() == "0.0"


@pytest.mark.parametrize(("how", "paid"), [("both", 1.0), ("tool", 0.0), ("text", 1.0)])
def test_a_terminal_tool_is_offered_and_reached_as_chosen(newest, chat, how, paid):
    taskset = {"env_name": "Essay", "arguments": {"terminal_tool_as": how}}
    env = make_env(newest.base_url, taskset=taskset, agent={"max_turns": 1})
    model = chat.script({"text": "0"})
    (trace,) = play(env, chat, model).traces
    assert trace.reward == paid
    assert ("tools" in chat.requests(model)[0]["body"]) == (how != "text")


def test_narrowed_schemas_are_offered(one_server, chat):
    table = {"move": {"direction": {"enum": ["up", "down"]}}}
    taskset = {"env_name": "Board", "arguments": {"tool_schemas": table}}
    env = make_env(one_server.base_url, taskset=taskset, agent={"max_turns": 1})
    model = chat.script({"calls": [["a", "move", '{"direction": "up"}']]})
    play(env, chat, model)
    body = chat.requests(model)[0]["body"]
    found = {one["function"]["name"]: one["function"] for one in body["tools"]}
    direction = found["move"]["parameters"]["properties"]["direction"]
    assert direction["enum"] == ["up", "down"]
