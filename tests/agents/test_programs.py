"""Agent programs as data: their commands, their files, what they say that they used."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym import errors
from ors_gym.agents import AGENT_PROGRAMS, AgentProgram, read_programs
from ors_gym.agents._programs import UsageReader, fill
from tests.support.virtual_environments import ROOT

pytestmark = pytest.mark.unit
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner) | st.lists(inner),
    max_leaves=4,
)
LINES = st.lists(st.dictionaries(st.sampled_from("abcd"), JSON) | JSON, max_size=4)


@pytest.mark.parametrize("name", AGENT_PROGRAMS)
def test_a_known_program_says_how_it_plays(name):
    program = AGENT_PROGRAMS[name]
    assert AgentProgram.find(name) is program
    assert program.name == name
    page = (ROOT / "docs" / "agents.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"`{' '.join(program.command)}`" in row
    assert row.endswith(f"| {program.tried_with} |")
    assert ("cost" in row) is ("cost_usd" in (program.usage or {}))
    assert program.install.startswith("npm install -g ")
    told = [*program.full_command, *program.files.values()]
    assert any("{mcp_url}" in one or "{mcp_config}" in one for one in told)
    for text in program.files.values():
        json.loads(fill(text, {"mcp_url": "http://127.0.0.1:1/x/mcp"}))


@pytest.mark.parametrize(
    ("command", "added", "left_out"),
    [
        ("claude -p --model x", "--mcp-config", ""),
        ("/opt/bin/claude -p --mcp-config mine.json", "--tools", "{mcp_config}"),
        (
            ["claude", "-p", "{prompt}", "--output-format=json"],
            "--tools",
            "stream-json",
        ),
        ("codex exec -c model=x", "--json", ""),
        ("codex exec -c features.shell_tool=true", "mcp_servers", "shell_tool=false"),
        ("codex exec -c", "features.shell_tool=false", ""),
        ("mine --json", "--json", "--mcp-config"),
    ],
)
def test_a_command_is_given_the_arguments_that_it_lacks(command, added, left_out):
    program = AgentProgram.find(command)
    full = program.full_command
    assert full[: len(program.command)] == program.command
    assert any(added in one for one in full)
    assert not left_out or not any(left_out in one for one in full)


@pytest.mark.parametrize(
    ("command", "model"),
    [("claude --model=x", "x"), ("codex exec -m y", "y"), ("gemini", ""), ("a -m", "")],
)
def test_a_command_names_its_model(command, model):
    assert AgentProgram.find(command).model == model


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not toml", "Expected '='"),
        ("a = 1", "a.toml: "),
        ("[a]\nkommand = ['x']", "has no 'kommand'"),
        ("[a]\ncommand = []", "list of texts"),
        ("[a]\ncommand = [1]", "list of texts"),
        ("[a]\ncommand = ['x']\narguments = [1]", "a.toml: "),
        ("[a]\narguments = []", "command"),
        ("[a]\ncommand = 'x -p'", "command is a list of texts"),
        # Its characters, one of them the star, would be patterns.
        ("[a]\ncommand = ['x']\npass_env = 'MINE_*'", "pass_env is a list of texts"),
        ("[a]\ncommand = ['x']\narguments = ['--json']", "arguments are lists"),
        ("[a]\ncommand = ['x']\narguments = [[]]", "arguments are lists"),
        ("[a]\ncommand = ['x']\n[a.env]\nLEVEL = 1", "env hold texts"),
        ("[a]\ncommand = ['x']\n[a.files]\n'a.json' = {}", "env hold texts"),
        (None, "a.toml: "),
    ],
)
def test_a_file_of_programs_that_cannot_be_read_is_refused(tmp_path, text, said):
    path = tmp_path / "a.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(errors.InvalidRequestError, match=said):
        read_programs(path)


def test_programs_of_a_file_are_known_by_their_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[mine]\ncommand = ['x', '{mcp_url}']\npass_env = ['A_*']\n")
    (mine,) = read_programs(path).items()
    expected = AgentProgram(command=("x", "{mcp_url}"), pass_env=("A_*",))
    assert mine == ("mine", expected)


@given(st.text(alphabet="{}abmcp_url"), st.text(alphabet="{}x"))
def test_only_known_names_in_braces_are_replaced(text, url):
    text = text.replace("mcp_url", "")
    assert fill(text, {"mcp_url": url}) == text
    assert fill(text + "{mcp_url}" + text, {"mcp_url": url}) == text + url + text


RULE: dict[str, Any] = {
    "line": {"type": "end"},
    "tokens": ["a.b", "a.c"],
    "cost": ["d"],
}


@given(LINES)
def test_whatever_is_no_number_is_passed_over(lines):
    reader = UsageReader(RULE)
    for line in lines:
        told = {**line, "type": "end"} if isinstance(line, dict) else line
        reader.read(json.dumps(told).encode())
    assert all(0 <= value < 1e15 * len(lines) for value in reader.usage.values())


def test_what_is_used_is_added_up():
    reader = UsageReader(RULE)
    for line in (
        b'{"type": "end", "a": {"b": 1, "c": 2}}',
        b'[{"type": "other", "d": 9}, {"type": "end", "d": 0.5, "a": {"b": 4}}]',
        b'{"type": "end", "a": {"b": true, "c": "7"}, "d": -1}',
        b'{"type": "end", "d": 1e999}',
        b'{"type": "end", "d": ' + b"9" * 5000 + b"}",
        b'"end" ' + b"[" * 100_000,
        b"\xff end",
    ):
        reader.read(line)
    assert reader.usage == {"tokens": 7, "cost": 0.5}
    silent = UsageReader(None)
    silent.read(b'{"type": "end", "a": {"b": 1}}')
    assert silent.usage == {}


def test_a_line_is_told_by_any_value():
    line = {"final": True, "turn": 1, "of": "a/\u00e9"}
    reader = UsageReader({"line": line, "tokens": ["n"]})
    reader.read(b'{"final": true, "turn": 1.0, "of": "a\\/\\u00e9", "n": 3}')
    reader.read(b'{"final": false, "turn": 1, "of": "a\\/\\u00e9", "n": 5}')
    assert reader.usage == {"tokens": 3}
