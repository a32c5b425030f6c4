"""Tool calls as numbers: what is numbered, masked, sent and refused."""

import json
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit, TransformReward

import ors_gym
from ors_gym.spaces import ToolCallSpace
from ors_gym.wrappers import DiscreteTools, ParsedText
from ors_gym.wrappers._discrete_tools import CallMenu
from tests.support.servers.process import RunningServer

ADD = {"tool": "add", "input": {"a": 1, "b": 2}}
ECHO = {"tool": "echo", "input": {"text": "é"}}
SUBMIT = {"tool": "submit", "input": {"answer": "0"}}
EXTRA = {"tool": "extra", "input": {"text": "x"}}
AFTER = {"tool": "after_setup", "input": {"text": "y"}}


def tool(name: str, schema: Any = None) -> Any:
    return {"name": name, "description": "", "input_schema": schema}


def choice(*values: str) -> Any:
    properties = {"choice": {"enum": list(values)}}
    return {"type": "object", "properties": properties, "required": ["choice"]}


def make(server: RunningServer, env_name: str = "contract", **arguments: Any) -> Any:
    arguments = {"env_name": env_name, "base_url": server.base_url, **arguments}
    return gym.make("ors/remote", **arguments)


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.actions: list[Any] = []

    def step(self, action):
        self.actions.append(action)
        return super().step(action)


@pytest.mark.parametrize(
    ("name", "tools", "count"),
    [
        ("guess", {"guess"}, 16),
        ("blackjack", {"hit", "stand"}, 2),
        ("maze", {"move"}, 4),
    ],
)
def test_every_call_of_a_finite_set_has_a_number(name, tools, count, closing):
    env = closing(DiscreteTools(gym.make(f"ors/{name}")))
    assert env.action_space == gym.spaces.Discrete(count)
    assert {call["tool"] for call in env.calls} == tools
    assert len({json.dumps(call) for call in env.calls}) == count
    for number in range(count):
        _, info = env.reset(seed=0)
        assert info["action_mask"].tolist() == [1] * count
        info = env.step(number)[4]
        assert (info["tool"], info["error_kind"]) == (env.calls[number]["tool"], "")
        assert info["action_mask"].dtype == np.int8
        assert env.action_space.sample(info["action_mask"]) < count


def test_an_infinite_set_says_what_to_do(closing):
    env = closing(gym.make("ors/math"))
    with pytest.raises(ors_gym.SchemaError, match=r"submit.*Pass calls=\[\.\.\.\]"):
        DiscreteTools(env)
    answers = [{"tool": "submit", "input": {"answer": str(i)}} for i in range(3)]
    assert DiscreteTools(env, answers).action_space == gym.spaces.Discrete(3)


def test_too_many_calls_or_none_say_what_to_do():
    large = tool("pick", choice(*map(str, range(1001))))
    with pytest.raises(ors_gym.SchemaError, match=r"more than 1000.*Pass calls="):
        CallMenu(ToolCallSpace([large]))
    with pytest.raises(ors_gym.SchemaError, match=r"no tools to number; pass calls="):
        CallMenu(ToolCallSpace([]))


def test_calls_are_taken_in_every_form(server, closing):
    given = [
        {"tool": "add", "input": {"a": 1, "b": 2}},
        {"name": "add", "arguments": '{"a": 2, "b": 3}'},
        '{"tool": "echo", "input": {"text": "hi"}}',
    ]
    env = closing(DiscreteTools(make(server), given))
    assert env.calls[1] == {"tool": "add", "input": {"a": 2, "b": 3}}
    # The env has copies of them.
    given[0]["input"]["a"] = 100  # type: ignore[index]
    env.reset(seed=0)
    assert [env.step(i)[0] for i in range(3)] == ["3", "5", "hi"]
    # Every kind of integer is a number.
    for number in (np.int64(1), np.uint8(1), np.array(1), True):
        assert env.step(number)[0] == "5"


@pytest.mark.parametrize("calls", [[], ["hello"], [ADD, 3]])
def test_calls_that_cannot_be_read_are_an_error(server, calls, closing):
    env = closing(make(server))
    with pytest.raises(ors_gym.InvalidRequestError, match=r"calls"):
        DiscreteTools(env, calls)


def test_an_env_without_tool_calls_is_refused(closing):
    env = closing(DiscreteTools(gym.make("ors/blackjack")))
    with pytest.raises(ors_gym.InvalidRequestError, match=r"not tool calls.*Discrete"):
        DiscreteTools(env)


def test_the_mask_follows_the_tools_of_the_session(server, closing):
    calls = [SUBMIT, EXTRA, AFTER, {"tool": "submit", "input": {}}]
    env = closing(DiscreteTools(make(server, "TaskTools"), calls))
    # What no schema allows is masked as well.
    for task, extra in ((0, 0), (1, 1), (2, 0), (3, 1)):
        _, info = env.reset(seed=task)
        assert info["action_mask"].tolist() == [1, extra, 1, 0]
        info["action_mask"][:] = 7
        assert env.action_mask.tolist() == [1, extra, 1, 0]
    assert env.action_space == gym.spaces.Discrete(4)


def test_a_masked_action_is_an_invalid_one_and_never_sent(server, closing):
    base = make(server, "TaskTools", invalid_action_reward=-0.5)
    env = closing(DiscreteTools(base, [SUBMIT, EXTRA]))
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(1)
    assert observation == (
        "Invalid action: action 1 (extra) calls no tool of this session. Choose one "
        "of 0..1 that the action mask allows."
    )
    assert (reward, terminated, truncated) == (-0.5, False, False)
    assert info["error_kind"] == "invalid_action"
    assert info["action_mask"].tolist() == [1, 0]
    assert server.runs("extra") == 0
    env.reset(seed=1)
    assert env.step(1)[0] == "x"
    assert server.runs("extra") == 1


@pytest.mark.parametrize("mode", ["tool_call", "text"])
@pytest.mark.parametrize(
    "action", [2, -1, 10**30, 10**5000], ids=["2", "-1", "30 digits", "5000 digits"]
)
def test_what_is_no_number_of_a_call_is_invalid(server, mode, action, closing):
    # With plain_text="submit" a text would be an answer, and end the episode.
    base = make(server, "TaskTools", action_mode=mode, plain_text="submit")
    env = closing(DiscreteTools(base, [SUBMIT, AFTER]))
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(action)
    assert observation.startswith("Invalid action: ")
    assert observation.endswith(" Choose one of 0..1.")
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["error_kind"] == "invalid_action"
    assert server.runs() == 0
    assert env.step(1)[0] == "y"


@pytest.mark.parametrize(
    "action", [0.0, None, "0", "hello", ADD, [0], np.array([0, 1])]
)
def test_what_is_no_number_is_a_mistake_in_code_and_raises(server, action, closing):
    base = make(server, "TaskTools", plain_text="submit")
    env = closing(DiscreteTools(base, [SUBMIT, AFTER]))
    env.reset(seed=0)
    with pytest.raises(
        ors_gym.InvalidRequestError, match=r"takes a whole number, 0\.\.1$"
    ):
        env.step(action)
    assert server.runs() == 0
    assert env.step(1)[0] == "y"


def test_a_text_env_gets_text(server, closing):
    recorder = Recorder(make(server, action_mode="text"))
    env = closing(DiscreteTools(recorder, [ADD, ECHO]))
    env.reset(seed=0)
    assert [env.step(0)[0], env.step(1)[0]] == ["3", "é"]
    assert all(action in recorder.action_space for action in recorder.actions)
    assert [json.loads(action) for action in recorder.actions] == [ADD, ECHO]


ROWS = r"row (\d+), column (\d+)"
ORDERS: dict[str, Callable[[Any], Any]] = {
    "actions first": lambda env: ParsedText(DiscreteTools(env), ROWS),
    "observations first": lambda env: DiscreteTools(ParsedText(env, ROWS)),
    "others between": lambda env: DiscreteTools(
        RecordEpisodeStatistics(ParsedText(TimeLimit(env, 6), ROWS))
    ),
    "others outside": lambda env: TimeLimit(
        TransformReward(ParsedText(DiscreteTools(env), ROWS), float), 6
    ),
}


def test_the_order_of_wrappers_makes_no_difference():
    played = {}
    for order, wrap in ORDERS.items():
        env = wrap(gym.make("ors/maze"))
        observation, info = env.reset(seed=5)
        seen = [observation.tolist()]
        for action in (0, 1, 3, 1, 9, 2):
            observation, reward, terminated, _, info = env.step(action)
            kept = observation.tolist(), info["action_mask"].tolist()
            seen.append((*kept, reward, terminated, info["error_kind"]))
        env.close()
        played[order] = seen
    assert played["actions first"][0] == [1.0, 1.0]
    assert len({str(step) for step in played["actions first"]}) > 3
    for order in ORDERS:
        assert played[order] == played["actions first"]


def test_sessions_that_begin_within_a_step_are_masked_anew(server, closing):
    base = gym.wrappers.Autoreset(make(server, "TaskTools"))
    env = closing(DiscreteTools(base, [SUBMIT, EXTRA]))
    _, info = env.reset(seed=0)
    infos = [info, *(env.step(0)[4] for _ in range(4))]
    masks = [info["action_mask"].tolist() for info in infos]
    assert masks == [[1, 0], [1, 0], [1, 1], [1, 1], [1, 0]]


def test_the_mask_follows_the_schema_of_the_session():
    menu = CallMenu(ToolCallSpace([tool("answer", choice("A", "B", "C", "D"))]))
    assert menu.mask([tool("answer", choice("A", "B"))]).tolist() == [1, 1, 0, 0]
    assert menu.mask([tool("answer", choice("C", "A"))]).tolist() == [1, 0, 1, 0]
    # The server alone knows what a schema means that is none.
    assert menu.mask([tool("answer", {"type": 5})]).tolist() == [1, 1, 1, 1]
    assert menu.mask([]).tolist() == [0, 0, 0, 0]


def test_tools_that_no_action_calls_are_reported_once():
    look, late = tool("look"), tool("100%s")
    menu = CallMenu(ToolCallSpace([look]))
    with pytest.warns(UserWarning, match=r"no action calls: 100%s\. Pass calls="):
        assert menu.mask([look, late]).tolist() == [1]
    # The same tools again, and calls that somebody chose, are no news.
    menu.mask([dict(look), dict(late)])  # type: ignore[list-item]
    CallMenu(ToolCallSpace([look]), [{"tool": "look", "input": {}}]).mask([look, late])
