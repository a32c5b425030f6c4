"""Tool calls as a person writes them in the terminal."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.display._game import Field
from ors_gym.display._play_in_terminal import _keys_of
from ors_gym.display._play_written import UnreadError, read_call, read_value
from ors_gym.display._transcript import write_call
from ors_gym.types import ToolSpec

pytestmark = pytest.mark.unit


def tool(name: str, **properties: Any) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"name": name, "description": "", "input_schema": schema}


WAY = {"enum": ["up", "down"]}
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
ANY = tool("any", a={})
ANY["input_schema"] = {"properties": {"a": {}}, "anyOf": [{}, {"required": ["a"]}]}
TOOLS = [
    *(tool("move", way=WAY, squares=NUMBER), tool("say", text=TEXT), ANY),
    *(tool("tell", who=TEXT, words=TEXT), tool("look"), tool("look up", word=TEXT)),
    tool("run", timeout=NUMBER, command=TEXT),
]


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("move up 2", "move", {"way": "up", "squares": 2}),
        ("1 up 2", "move", {"way": "up", "squares": 2}),
        ("move squares=2 up", "move", {"way": "up", "squares": 2}),
        ("move sideways two", "move", {"way": "sideways", "squares": "two"}),
        ("move", "move", {}),
        ("move 'up'", "move", {"way": "up"}),
        ("move(up, 2)", "move", {"way": "up", "squares": 2}),
        ('move (way="up",squares = 2)', "move", {"way": "up", "squares": 2}),
        ('move {"way": [1], "more": 1}', "move", {"way": [1], "more": 1}),
        ("say don't say = or (this)", "say", {"text": "don't say = or (this)"}),
        ('say "quoted"', "say", {"text": "quoted"}),
        ('say "a" and "b"', "say", {"text": '"a" and "b"'}),
        ("say text=hello there", "say", {"text": "hello there"}),
        (r"say C:\temp", "say", {"text": r"C:\temp"}),
        ("tell bob it is late", "tell", {"who": "bob", "words": "it is late"}),
        ("tell bob don't", "tell", {"who": "bob", "words": "don't"}),
        ("tell(bob, words=1)", "tell", {"who": "bob", "words": 1}),
        ("tell bob 'it is late'", "tell", {"who": "bob", "words": "it is late"}),
        ("tell bob don't, can't", "tell", {"who": "bob", "words": "don't, can't"}),
        ("tell 'big bob' don't", "tell", {"who": "big bob", "words": "don't"}),
        ("tell o'brien it's late", "tell", {"who": "o'brien", "words": "it's late"}),
        ("tell who='big bob' hi", "tell", {"who": "big bob", "words": "hi"}),
        ("tell '' hi", "tell", {"who": "", "words": "hi"}),
        ("tell who=bob it  is", "tell", {"who": "bob", "words": "it  is"}),
        ("tell words=hi who=bob", "tell", {"words": "hi", "who": "bob"}),
        *(
            (f"run {line}", "run", {"timeout": 10, "command": command})
            for line, command in [
                ('10 grep "a b" file', 'grep "a b" file'),
                ('timeout=10 grep "a b" file', 'grep "a b" file'),
                ("10 A=1 env", "A=1 env"),
                ("10 command=ls -l  x", "ls -l  x"),
                ("10 'a' 'b'", "'a' 'b'"),
                ('command="ls -l x" timeout=10', "ls -l x"),
            ]
        ),
        ("run command=ls -l x", "run", {"command": "ls -l x"}),
        ("run command=ls", "run", {"command": "ls"}),
        ("say text", "say", {"text": "text"}),
        ("say text = text", "say", {"text": "text"}),
        ("look up cat", "look up", {"word": "cat"}),
        ("look()", "look", {}),
        ("any a=1 b=two", "any", {"a": 1, "b": "two"}),
    ],
)
def test_a_call_as_it_is_written(line, name, expected):
    found, given = read_call(line, TOOLS)
    assert (found["name"], given) == (name, expected)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fly north", "there is no tool 'fly'; write its name or its number (1 to 7)"),
        ("", "there is no tool ''"),
        ("moved up", "there is no tool 'moved'"),
        ("move up 2 3", "move takes way, squares; more arguments were given"),
        ("look around", "look takes nothing; more arguments were given"),
        ("move(down=1)", "move takes way, squares; no argument 'down'"),
        ("move(way=up, way=up)", "no argument 'way', or it was given twice"),
        ("move {up}", "this is not JSON"),
        ("move(1 2)", "write a comma before '2'"),
        ("any thing", "write the input of any as a JSON object: {...}"),
    ],
)
def test_what_is_no_call_says_what_to_write(line, said):
    with pytest.raises(UnreadError) as caught:
        read_call(line, TOOLS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text", ["1" + "0" * 400, "NaN", "Infinity", "[" * 100_000, "1" * 5000]
)
@pytest.mark.parametrize("kind", ["integer", "number", "json", "choice"])
def test_a_value_that_cannot_be_sent_is_sent_as_text_or_refused(text, kind):
    field = Field("n", {}, "", required=True, kind=kind)
    value = read_value(text, field)
    assert value == text or json.loads(json.dumps(value, allow_nan=False)) == value


@given(
    st.one_of(
        st.text(),
        st.sampled_from(TOOLS).flatmap(
            lambda one: st.text("(){}[]=,'\"\\ a1\n").map(
                lambda rest: one["name"] + rest
            )
        ),
    )
)
def test_no_line_is_a_crash(line):
    with contextlib.suppress(UnreadError):
        read_call(line, TOOLS)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.text("12")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["way", "n", "all_of_it"]), VALUES))
def test_a_call_of_a_transcript_can_be_written_again(arguments):
    one = tool("move", way={}, n={}, all_of_it={})
    assert read_call(write_call("move", arguments), [one])[1] == arguments


def test_a_choice_has_a_key():
    assert _keys_of(["up", "down"]) == {"1": "up", "2": "down"}
    assert _keys_of(["A", "B"]) == {"A": "A", "B": "B"}
    assert _keys_of(["1", "2"]) == {"1": "1", "2": "2"}
    # A digit would not be known to be the whole answer.
    assert _keys_of(["10", "2"]) == {}
    assert _keys_of([f"way {number}" for number in range(10)]) == {}
