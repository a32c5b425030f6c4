"""Values of the server: what is read, and what is refused."""

import copy
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ors_gym.errors import LimitExceededError, ProtocolError
from ors_gym.protocol import _reply_json as reading
from ors_gym.protocol._redaction import Redactor

pytestmark = pytest.mark.unit

TEXT = {"type": "text", "text": "hi"}
IMAGE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}


def output(**fields: Any) -> dict[str, Any]:
    whole = {"blocks": [TEXT], "metadata": None, "reward": 1, "finished": False}
    return whole | fields


@pytest.mark.parametrize(
    ("reward", "read"),
    [*((n, n) for n in (1, 0.5, -2, None, 1e308)), (2**53 + 1, 2.0**53)],
)
def test_rewards(reward: Any, read: float | None) -> None:
    value = reading.read_tool_output(output(reward=reward))["reward"]
    assert value == read
    assert value is None or type(value) is float


NO_REWARDS = [True, False, "1", "NaN", math.nan, math.inf, -math.inf, 10**400, [], {}]
NO_VERDICTS: list[Any] = [None, 0, 1, "true", "", [], 1.0]
NO_OBJECTS: list[Any] = [[], "x", 1, True]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((output(reward=value), "reward") for value in [*NO_REWARDS, [1.0]]),
        *((output(finished=value), "finished") for value in NO_VERDICTS),
        *((output(metadata=value), "metadata") for value in NO_OBJECTS),
        *((value, "not a tool output") for value in [None, *NO_OBJECTS]),
    ],
)
def test_what_is_no_output(value: Any, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        reading.read_tool_output(value)


def test_missing_metadata_and_reward_are_none() -> None:
    read = reading.read_tool_output({"blocks": [], "finished": True})
    assert read == {"blocks": [], "metadata": None, "reward": None, "finished": True}


def test_unknown_fields_are_ignored_and_unknown_blocks_kept() -> None:
    sound = {"type": "audio", "data": 7}
    read = reading.read_tool_output(output(blocks=[TEXT, IMAGE, sound], more=1))
    assert read["blocks"] == [TEXT, IMAGE, sound]
    assert set(read) == {"blocks", "metadata", "reward", "finished"}


@pytest.mark.parametrize(
    "block",
    [
        *(None, "text", {}, {"type": None}, {"type": 1}, {"text": "hi"}),
        {"type": "text"},
        {"type": "text", "text": None},
        {"type": "image", "data": "x"},
        {"type": "image", "data": 1, "mimeType": "image/png"},
    ],
)
def test_what_is_no_block(block: Any) -> None:
    with pytest.raises(ProtocolError, match="not a block"):
        reading.read_blocks([TEXT, block])


HARD = {"name": "hard", "type": "test"}
MESSAGE = {"role": "user", "blocks": [TEXT]}
GOOD: list[tuple[Callable[[Any], Any], Any, Any]] = [
    (reading.read_environments, ["a", "B"], ("a", "B")),
    (reading.read_environments, [], ()),
    (reading.read_session_id, {"sid": "7f", "more": 1}, "7f"),
    (reading.read_splits, ["train"], [{"name": "train", "type": "train"}]),
    (reading.read_splits, ["hard"], [{"name": "hard", "type": "validation"}]),
    (reading.read_splits, [HARD, {"name": "test"}], [HARD, HARD | {"name": "test"}]),
    (reading.read_count, {"num_tasks": 0}, 0),
    (reading.read_count, {"num_tasks": 10**12}, 10**12),
    (reading.read_task, {"task": {"id": 1}}, {"id": 1}),
    (reading.read_tasks, {"tasks": [{}, {"id": 1}]}, [{}, {"id": 1}]),
    (reading.read_blocks, [TEXT], [TEXT]),
    (reading.read_messages, [MESSAGE], [MESSAGE]),
    (reading.read_scores, {"scores": [{"reward": 1}]}, [{"reward": 1}]),
]


def read_tools(value: Any) -> Any:
    return reading.read_tools(value, 9)


BAD_VALUES: dict[Callable[[Any], Any], list[Any]] = {
    reading.read_environments: [{"a": 1}, ["a", 1]],
    reading.read_session_id: [{}, {"sid": ""}, {"sid": 1}, []],
    reading.read_splits: [{}, [1], [{"name": 1}], [{"type": "train"}]],
    reading.read_count: [*({"num_tasks": n} for n in (-1, True, 1.0, "1")), 1],
    reading.read_task: [{"task": None}, {"task": []}],
    reading.read_tasks: [{"tasks": {}}, {"tasks": [1]}, []],
    reading.read_blocks: [None, {"type": "text"}],
    reading.read_messages: [
        *({}, ["hi"], [{"role": "user"}], [{"role": 1, "blocks": []}]),
    ],
    reading.read_scores: [
        *({"scores": {}}, {"scores": [{}]}, None),
        *({"scores": [{"reward": None}]}, {"scores": [{"reward": True}]}),
    ],
    read_tools: [
        *(None, {}, {"tools": {}}, {"tools": [None]}, {"tools": [{}]}),
        *({"tools": [{"name": 1}]}, {"tools": [{"name": "f", "input_schema": []}]}),
    ],
}
BAD = [(read, value) for read, values in BAD_VALUES.items() for value in values]


@pytest.mark.parametrize(("read", "value", "expected"), GOOD)
def test_good_values(read: Callable[[Any], Any], value: Any, expected: Any) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(("read", "value"), BAD)
def test_bad_values(read: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(ProtocolError):
        read(value)


def test_tools() -> None:
    value = {
        "tools": [
            {"name": "f", "description": "F.", "input_schema": {"type": "object"}},
            {"name": "g", "description": None, "more": 1},
        ],
        "terminal_tool": {"name": "end", "arg": "text"},
    }
    tools, rest = reading.read_tools(value, 2)
    assert tools == [
        {"name": "f", "description": "F.", "input_schema": {"type": "object"}},
        {"name": "g", "description": "", "input_schema": None},
        {
            "name": "end",
            "description": "",
            "input_schema": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
            "terminal": "both",
        },
    ]
    assert rest == {"terminal_tool": {"name": "end", "arg": "text"}}


@pytest.mark.parametrize(
    ("listed", "declared"),
    [([], {"name": "end"}), (["end"], {"name": "end", "arg": None}), ([], None)],
)
def test_a_terminal_tool_is_listed_once(listed: list[str], declared: Any) -> None:
    value = {"tools": [{"name": name} for name in listed], "terminal_tool": declared}
    tools, _ = reading.read_tools(value, 2)
    assert [(one["name"], one["input_schema"], one["terminal"]) for one in tools] == (
        [("end", None, "both")] if declared else []
    )


@pytest.mark.parametrize("declared", ["end", {"arg": "text"}, {"name": "f", "arg": 1}])
def test_a_terminal_tool_that_is_none(declared: Any) -> None:
    with pytest.raises(ProtocolError):
        reading.read_tools({"tools": [], "terminal_tool": declared}, 2)


def test_too_many_tools() -> None:
    with pytest.raises(LimitExceededError, match=r"3 tools; Limits\.tools allows 2"):
        reading.read_tools({"tools": [{"name": "f"}] * 3}, 2)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"<html>", b"{", "{", b"1 2", b"{} {}", b"[" * 100_000, b"9" * 5000),
        *(b'{"a": NaN}', b"Infinity", b"-Infinity"),
        *(b'{"a": 1e999}', b"[-1E+400]", b"1" * 400 + b".5"),
        *(b"[" * 300 + b"]" * 300, b'{"a":' * 257 + b"[]" + b"}" * 257),
        *(b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}"),
    ],
)
def test_what_is_no_json(data: bytes | str) -> None:
    with pytest.raises(ProtocolError, match=r"^the reply is not JSON") as caught:
        reading.parse_json(data, "the reply")
    assert len(str(caught.value)) < 500


def test_what_is_large_or_deep_is_read_as_long_as_it_can_be_written_again() -> None:
    deep: Any = 1e308
    for _ in range(256):
        deep = {"a": deep, "b": 0.0}
    for value in (deep, [[1e-999, 1e308]] * 400, ["{[" * 400], "[" * 600):
        written = json.dumps(value)
        read = reading.parse_json(written, "it")
        assert json.dumps(read) == written == json.dumps(copy.deepcopy(read))
        assert pickle.loads(pickle.dumps(read)) == read
    with pytest.raises(ProtocolError, match="nested more than 256 levels"):
        reading.parse_json(json.dumps([deep]), "it")


def test_json_may_be_text_or_bytes() -> None:
    assert reading.parse_json(b'["\xc3\xa9"]', "it") == ["é"]
    assert reading.parse_json('["é"]', "it") == ["é"]
    assert reading.parse_json(b' {"a": 1} \n', "it") == {"a": 1}
    assert reading.parse_json(b'{"a": 1}\r\n', "it") == {"a": 1}


SECRET = "swordfish"
LEAKY: list[tuple[Callable[[Any], Any], Any]] = [
    (reading.read_environments, {SECRET: SECRET}),
    (reading.read_environments, [SECRET, 1]),
    (reading.read_session_id, {"sid": [SECRET]}),
    (reading.read_splits, [{"name": [SECRET]}]),
    (reading.read_count, {"num_tasks": SECRET}),
    (reading.read_task, {"task": SECRET}),
    (reading.read_tasks, {"tasks": [SECRET]}),
    (reading.read_blocks, [SECRET]),
    (reading.read_blocks, [{"type": "text", "text": [SECRET]}]),
    (reading.read_messages, [{"role": [SECRET], "blocks": []}]),
    (reading.read_scores, {"scores": [{"reward": SECRET}]}),
    (reading.read_tool_output, {"finished": SECRET}),
    (reading.read_tool_output, output(metadata=SECRET)),
    (reading.read_tool_output, output(reward=SECRET)),
    (read_tools, {"tools": [{"name": [SECRET]}]}),
]


@pytest.mark.parametrize(("read", "value"), LEAKY)
def test_no_message_holds_what_a_value_holds(read, value):
    with pytest.raises(ProtocolError) as caught:
        read(value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("data", [SECRET, "x" * 55 + SECRET, SECRET * 10])
def test_what_is_no_json_is_shown_without_secrets(data: str) -> None:
    redact = Redactor([SECRET])
    for written in (data, data.encode()):
        with pytest.raises(ProtocolError) as caught:
            reading.parse_json(written, "it", redact)
        assert "sword" not in str(caught.value)


def test_a_value_of_any_depth_can_be_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, [deep], {"tools": deep, "tasks": deep, "task": deep}):
        for read, _ in BAD:
            with pytest.raises(ProtocolError):
                read(value)
    while deep:
        deep = deep.pop()
