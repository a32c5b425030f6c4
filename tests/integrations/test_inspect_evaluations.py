"""Inspect AI evaluating its mock model on real servers.

Each mock reply carries its own usage: where one has none, the mock counts tokens with
a vocabulary that is fetched from the network.
"""

import gc
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import inspect_ai
import pytest
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageTool,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.tool import ToolCall

from ors_gym import AsyncORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.integrations import inspect
from ors_gym.server import REFERENCE_PLAYERS
from tests.support.servers.process import RunningServer, start_server

GROUP = "agents"
SECRET = "s3cret-of-the-task"


def call(tool: str, **given: Any) -> dict[str, Any]:
    return {"tool": tool, "input": given}


def say(calls: Sequence[dict[str, Any]], text: str = "") -> ModelOutput:
    """Return what a model says, with its usage, so that nothing is counted."""
    made = [
        ToolCall(id=f"call-{n}", function=one["tool"], arguments=one["input"])
        for n, one in enumerate(calls)
    ]
    message = ChatMessageAssistant(content=text, tool_calls=made or None)
    output = ModelOutput.from_message(message)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


def mock(answers: Callable[..., ModelOutput] | list[ModelOutput]) -> Any:
    return get_model("mockllm/model", custom_outputs=answers)


def evaluate(task: Any, model: Any, tmp_path: Any, **arguments: Any) -> EvalLog:
    with warnings.catch_warnings():
        # Inspect leaves streams of its own open.
        warnings.filterwarnings("ignore", category=ResourceWarning, module="anyio")
        (log,) = inspect_ai.eval(
            task, model=model, log_dir=str(tmp_path), display="none", **arguments
        )
        gc.collect()
    return log


def samples_of(log: EvalLog) -> list[EvalSample]:
    return list(log.samples or ())


def value_of(sample: EvalSample) -> Any:
    assert sample.scores is not None
    return sample.scores["ors_scorer"].value


def test_the_reference_player_gets_the_rewards_that_the_server_pays(bundled, tmp_path):
    def answer(messages: list[Any], tools: list[Any], *_: Any) -> ModelOutput:
        # A player keeps nothing that is not in the conversation: replay it.
        player = REFERENCE_PLAYERS["guess"]()
        listed: Any = [{"name": tool.name, "description": ""} for tool in tools]
        action: Any = {}
        for message in messages:
            if message.role in ("user", "tool"):
                action = player(message.text, listed)
        return say([action])

    task = inspect.ors_task("guess", bundled, split="test", tasks=range(3))
    log = evaluate(task, mock(answer), tmp_path)
    assert log.status == "success", log.error
    values = [value_of(sample) for sample in samples_of(log)]
    assert len(values) == 3
    assert all(value > 0 for value in values)
    assert [sample.id for sample in samples_of(log)] == [0, 1, 2]
    assert log.results is not None
    figures = log.results.scores[0].metrics
    assert figures["mean"].value == pytest.approx(sum(values) / 3)


def contract_task(server: RunningServer, **arguments: Any) -> Any:
    return inspect.ors_task("Contract", server.base_url, tasks=[0], **arguments)


def test_a_conversation_is_logged_with_every_call_answered(tidy_server, tmp_path):
    outputs = [
        say([call("add", a=1, b=2), call("echo", text="hi")], "Adding."),
        say([], "I think it is 3."),
        say([call("image")]),
        say([call("submit", answer="0"), call("add", a=1, b=1)]),
    ]
    task = contract_task(tidy_server, system_prompt="Be brief.")
    (sample,) = samples_of(evaluate(task, mock(outputs), tmp_path))
    roles = [message.role for message in sample.messages]
    assert roles[:5] == ["system", "user", "assistant", "tool", "tool"]
    assert roles[5:7] == ["assistant", "user"]
    answers = [m for m in sample.messages if m.role == "tool"]
    said = [m.tool_calls or () for m in sample.messages if m.role == "assistant"]
    asked = [one.id for calls in said for one in calls]
    assert [a.tool_call_id for a in answers] == asked
    assert answers[0].text == "3"
    assert answers[-1].text == "not run: episode finished"
    contents = [m.content for m in sample.messages if isinstance(m.content, list)]
    assert [part.type for content in contents for part in content].count("image") == 1
    assert value_of(sample) == sum(filter(None, tidy_server.rewards()))
    assert tidy_server.runs("add") == 1


def test_a_prompt_with_roles_keeps_them(newest, tmp_path):
    task = inspect.ors_task(
        "Interview", newest.base_url, tasks=[2], system_prompt="Mine."
    )
    model = mock([say([call("submit", answer="4")])])
    (sample,) = samples_of(evaluate(task, model, tmp_path))
    system, asked, said, result, question, *_ = sample.messages
    assert (system.role, system.text) == ("system", "Mine.\n\nBe brief.")
    assert (asked.role, asked.text) == ("user", "Is it 7?")
    assert isinstance(said, ChatMessageAssistant)
    assert isinstance(said.content, list)
    assert [part.type for part in said.content] == ["reasoning", "text"]
    (made,) = list(said.tool_calls or [])
    assert (made.id, made.function, made.arguments) == ("c1", "submit", {"answer": "7"})
    assert isinstance(result, ChatMessageTool)
    assert (result.tool_call_id, result.function) == ("c1", "submit")
    assert (result.text, question.text) == ("wrong", "2 + 2 = ?")
    assert value_of(sample) == 1.0
    assert len(newest.log("prompt")) == 1


def test_limits_of_inspect_end_an_episode_that_keeps_its_reward(tidy_server, tmp_path):
    def answer(*_: Any) -> ModelOutput:
        return say([call("add", a=1, b=2)])

    task = contract_task(tidy_server, nonterminal_reward=-0.25)
    log = evaluate(task, mock(answer), tmp_path, message_limit=6)
    (sample,) = samples_of(log)
    assert sample.limit is not None
    assert value_of(sample) == 0.5 * tidy_server.runs("add") - 0.25


def test_a_full_context_ends_an_episode(one_server, tmp_path):
    full = say([], "")
    full.choices[0].stop_reason = "model_length"
    model = mock([say([call("add", a=1, b=2)]), full])
    (sample,) = samples_of(evaluate(contract_task(one_server), model, tmp_path))
    assert value_of(sample) == 0.5
    (score,) = sample.scores.values()
    assert score.explanation == "max_tokens"


def test_an_outage_is_no_score_and_a_retry_plays_anew(tmp_path):
    broken: list[bool] = []
    with start_server("ors-sdk-0.1.0") as server:

        def answer(messages: list[Any], *_: Any) -> ModelOutput:
            if messages[-1].role == "tool" and not broken:
                broken.append(True)
                server.restart()
                server.mark()
            if broken:
                return say([call("submit", answer="0")])
            return say([call("add", a=1, b=2)])

        log = evaluate(contract_task(server), mock(answer), tmp_path, retry_on_error=0)
        assert log.status == "error"
        assert "SessionLostError" in str(log.error)
        (sample,) = samples_of(log)
        assert not sample.scores
        assert all("session" not in message.text for message in sample.messages)
        broken.clear()
        log = evaluate(contract_task(server), mock(answer), tmp_path, retry_on_error=1)
        (sample,) = samples_of(log)
        assert value_of(sample) == 1.0
        assert sample.error_retries
        assert server.open_sessions() == set()


def test_secrets_reach_the_environment_and_no_log(one_server, tmp_path):
    def client() -> AsyncORSClient:
        return AsyncORSClient(one_server.base_url, api_key=SECRET)

    secrets = {"TOKEN": SECRET}
    functions = {"secrets": lambda: secrets, "client_factory": client}
    task = inspect.ors_task("Contract", tasks=[0], **functions)
    evaluate(task, mock([say([call("submit", answer="0")])]), tmp_path)
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert one_server.log("construct")[-1]["secrets"] == {"TOKEN": digest}
    (path,) = tmp_path.glob("*.eval")
    log = inspect_ai.log.read_eval_log(str(path))
    assert SECRET not in log.model_dump_json()
    for given in ({"secrets": secrets}, {"api_key": SECRET}):
        with pytest.raises(InvalidRequestError, match="logs") as caught:
            inspect.ors_solver(**given)
        assert SECRET not in str(caught.value)


def test_the_dataset_names_tasks_and_holds_none(one_server):
    dataset = inspect.ors_dataset("contract", one_server.base_url, split="test")
    samples = list(dataset)
    assert [sample.id for sample in samples] == list(range(len(samples)))
    named = {"env_name": "contract", "split": "test", "task_index": 0}
    assert samples[0].metadata == named
    assert samples[0].target == ""


def test_tools_keep_what_their_schemas_refer_to():
    schema = {
        "type": "object",
        "$defs": {
            "Colour": {"enum": ["red", "blue"], "type": "string"},
            "Tree": {"properties": {"child": {"$ref": "#/$defs/Tree"}}},
        },
        "properties": {
            "colour": {"$ref": "#/$defs/Colour", "description": "Which."},
            "size": {"oneOf": [{"const": "big"}, {"type": "integer"}]},
            "tree": {"$ref": "#/$defs/Tree"},
            "names": {"type": "array", "items": {"$ref": "#/$defs/Colour"}},
            "all": {"allOf": [{"type": "string"}, {"minLength": 2}]},
            "odd": {"type": "strange"},
            "lost": {"$ref": "#/$defs/Nowhere"},
            "any": True,
            # Written out to any depth, so many references to itself would take hours.
            **{f"self{n}": {"$ref": "#"} for n in range(30)},
        },
        "required": ["colour"],
    }
    paint: Any = {"name": "paint", "description": "", "input_schema": schema}
    (info,) = inspect._tool_infos([paint])
    found = json.loads(info.model_dump_json(exclude_none=True))["parameters"]
    given = found["properties"]
    colour = {"type": "string", "enum": ["red", "blue"], "description": "Which."}
    assert given["colour"] == colour
    assert given["size"] == {"anyOf": [{"enum": ["big"]}, {"type": "integer"}]}
    assert given["names"]["items"]["enum"] == ["red", "blue"]
    assert given["all"] == {"type": "string", "minLength": 2}
    assert given["odd"] == {"description": '{"type": "strange"}'}
    assert given["lost"] == given["any"] == {}
    assert given["tree"] == {"properties": {"child": {}}}
    assert found["required"] == ["colour"]
    assert info.description == "paint"


def test_a_schema_that_grows_with_each_reference_is_cut():
    parts = {
        f"part{level}": {
            "type": "object",
            "properties": {
                f"p{place}": {"$ref": f"#/$defs/part{level + 1}"} for place in range(30)
            },
        }
        for level in range(5)
    }
    root = {"properties": {"all": {"$ref": "#/$defs/part0"}}, "$defs": parts}
    tool: Any = {"name": "build", "description": "", "input_schema": root}
    # It would have 30 ** 5 parts.
    (info,) = inspect._tool_infos([tool])
    written = info.parameters.properties["all"].model_dump_json(exclude_none=True)
    assert len(written) < 1_000_000
    assert "p29" in written


def test_arguments_that_inspect_cannot_read_are_an_invalid_action(one_server, tmp_path):
    output = say([call("add")])
    assert output.message.tool_calls
    output.message.tool_calls[0].parse_error = "Error parsing: {a: 1"
    said = inspect._from_inspect(output.message)
    assert said["tool_calls"][0]["function"]["arguments"] == "Error parsing: {a: 1"
    task = contract_task(one_server, invalid_action_reward=-0.5, max_turns=1)
    (sample,) = samples_of(evaluate(task, mock([output]), tmp_path))
    assert value_of(sample) == -0.5
    assert sample.messages[-1].role == "tool"
    assert "Invalid action" in sample.messages[-1].text


def test_the_documented_block_runs(documented, bundled, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ORS_BASE_URL", bundled)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    model = mock(lambda *_: say([call("submit", answer="no number")]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ResourceWarning, module="anyio")
        exec(documented("runs with inspect-ai 0.3.285"), {"model": model})
        gc.collect()
    assert capsys.readouterr().out.strip().endswith("0.0")


@pytest.mark.parametrize(("how", "paid"), [("both", 1.0), ("tool", 0.0), ("text", 1.0)])
def test_a_terminal_tool_is_offered_and_reached_as_chosen(newest, tmp_path, how, paid):
    offered: list[list[str]] = []

    def answer(_: Any, tools: list[Any], *__: Any) -> ModelOutput:
        offered.append([tool.name for tool in tools])
        return say([], "2")

    task = inspect.ors_task(
        *("Essay", newest.base_url), tasks=[1], terminal_tool_as=how, max_turns=1
    )
    (sample,) = samples_of(evaluate(task, mock(answer), tmp_path))
    assert offered == [[] if how == "text" else ["submit"]]
    assert value_of(sample) == paid


def test_narrowed_schemas_are_offered(one_server, tmp_path):
    offered: list[Any] = []

    def answer(_: Any, tools: list[Any], *__: Any) -> ModelOutput:
        offered.extend(tool for tool in tools if tool.name == "move")
        return say([call("move", direction="up")])

    table = {"move": {"direction": {"enum": ["up", "down"]}}}
    url = one_server.base_url
    task = inspect.ors_task("Board", url, tasks=[0], tool_schemas=table, max_turns=1)
    evaluate(task, mock(answer), tmp_path)
    assert offered[0].parameters.properties["direction"].enum == ["up", "down"]
