"""Playing with widgets, without a kernel: forms of any schema, and mistakes."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ors_gym
from ors_gym.display import _play
from ors_gym.display._game import Game, list_fields
from ors_gym.display._play_in_notebook import Form, NotebookPlayer
from ors_gym.wrappers import DiscreteTools

widgets = pytest.importorskip("ipywidgets")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"Way": {"enum": ["up", "down", 1, True]}},
    "properties": {
        "text": {"type": "string"},
        "short": {"type": "string", "maxLength": 5, "default": "abc"},
        "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 4},
        "free": {"type": "integer", "exclusiveMinimum": 0},
        "share": {"type": "number"},
        "sure": {"type": "boolean", "default": True},
        "way": {"$ref": "#/$defs/Way", "default": "down"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "list": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["text", "count", "free", "share", "sure", "way", "list"],
}


def make_form(schema: Any) -> Form:
    return Form(widgets, {"name": "any", "description": "", "input_schema": schema})


def fill_in(form: Form, **texts: str) -> None:
    for name, text in texts.items():
        form.editors[name].value = text


def test_each_kind_of_argument_is_edited_and_read():
    form = make_form(SCHEMA)
    kinds = {name: type(editor).__name__ for name, editor in form.editors.items()}
    others = {"count": "BoundedIntText", "sure": "Checkbox", "way": "Dropdown"}
    assert kinds == {
        **dict.fromkeys(("short", "free", "share", "maybe"), "Text"),
        **dict.fromkeys(("text", "list"), "Textarea"),
        **others,
    }
    fill_in(form, free="12", share="0.5", list='["a"]')
    read = {"text": "", "count": 4, "free": 12, "share": 0.5}
    assert form.read() == {**read, "sure": True, "way": "down", "list": ["a"]}
    form.editors["count"].value = 500
    assert form.read()["count"] == 9
    # True and 1 are two choices.
    form.editors["way"].value = 3
    assert form.read()["way"] is True


def test_what_may_be_left_out_is_given_once_it_is_edited():
    form = make_form(SCHEMA)
    fill_in(form, free="12", share="1", list="[]")
    assert "maybe" not in form.read()
    form.editors["maybe"].value = "7"
    assert form.read()["maybe"] == 7
    form.given["maybe"].value = False
    form.given["short"].value = True
    assert "maybe" not in form.read()
    assert form.read()["short"] == "abc"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("free", "twelve", "free: 'twelve' is not an integer"),
        ("free", "true", "not an integer"),
        ("free", "1.5", "not an integer"),
        ("share", '"x"', "not a number"),
        ("list", "[1", "not JSON"),
    ],
)
def test_what_cannot_be_read_is_said(name, text, said):
    form = make_form(SCHEMA)
    fill_in(form, **{"free": "12", "share": "1", "list": "[]", name: text})
    with pytest.raises(ValueError, match=said):
        form.read()


def test_an_input_of_unknown_shape_is_written_as_json():
    ways = [{"required": ["a"]}, {"required": ["b"]}]
    form = make_form({"properties": {"a": {}, "b": {}}, "anyOf": ways})
    form.editors[""].value = '{"a": 1}'
    assert form.read() == {"a": 1}
    form.editors[""].value = "[]"
    with pytest.raises(ValueError, match="JSON object"):
        form.read()
    assert make_form(None).read() == {}


KEYWORDS = (
    *("type", "properties", "required", "enum", "const", "anyOf", "allOf"),
    *("$ref", "$defs", "default", "minimum", "maximum", "maxLength"),
)
NAMES = st.sampled_from(KEYWORDS)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=60, deadline=None)
@given(properties=st.dictionaries(st.text(max_size=5), JSON, max_size=3), rest=JSON)
def test_any_schema_gives_a_form(properties, rest):
    schema = {**(rest if isinstance(rest, dict) else {}), "properties": properties}
    for candidate in (schema, rest):
        form = make_form(candidate)
        tool: Any = {"name": "x", "description": "", "input_schema": candidate}
        fields = list_fields(tool)
        assert len(form.editors) == (1 if fields is None else len(fields))


@pytest.fixture
def open_player() -> Iterator[Callable[[str], NotebookPlayer]]:
    with contextlib.ExitStack() as stack:
        yield lambda name: NotebookPlayer(
            Game(stack.enter_context(contextlib.closing(gym.make(name)))), widgets
        )


def test_what_cannot_be_sent_is_said_and_nothing_raised(open_player):
    player = open_player("ors/sql")
    player.tool.value, player.text.value = -1, "no <b>call</b>"
    player.step.click()
    assert "invalid_action" in player.transcript.value
    assert "no &lt;b&gt;call&lt;/b&gt;" in player.transcript.value
    # Without the task there is no episode to step.
    player.task.value = 10**9
    player.reset.click()
    assert "UnknownTaskError" in player.message.value
    assert player.step.disabled
    player.task.value = 0
    player.reset.click()
    player.game.inner.close()
    player.step.click()
    assert "closed" in player.message.value


def test_an_entry_that_the_schema_forbids_is_not_sent_unless_wanted(open_player):
    player = open_player("ors/guess")
    player.tool.value = 0
    (name,) = player.form.editors
    player.form._readers[name] = lambda: "twelve"
    player.step.click()
    assert "not sent" in player.message.value
    assert player.game.transcript.steps == 0
    player.check.value = False
    player.step.click()
    assert player.game.transcript.steps == 1


def test_without_ipywidgets_the_terminal_player_says_why(monkeypatch, capsys):
    monkeypatch.setattr(_play, "_in_a_notebook", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("builtins.input", lambda question: "q")
    with contextlib.closing(gym.make("ors/guess")) as env:
        assert ors_gym.play(env) is None
    printed = capsys.readouterr().out
    assert 'pip install "ors-gym[notebook]"' in printed
    assert "left the episode" in printed


def test_a_game_leaves_views_aside_and_refuses_other_envs():
    env = DiscreteTools(gym.make("ors/guess"))
    game = Game(env)
    assert "Guess" in game.reset(0).text or game.transcript.entries
    entry = game.step({"tool": "guess", "input": {"number": 1}})
    assert entry.call == "guess(number=1)"
    env.close()
    with pytest.raises(ors_gym.InvalidRequestError, match="ORS"):
        Game(gym.make("CartPole-v1"))


@pytest.mark.parametrize("most", ["9", None, [], {}, True])
def test_a_length_that_is_no_number_is_left_aside(most):
    form = make_form({"properties": {"a": {"type": "string", "maxLength": most}}})
    assert type(form.editors["a"]).__name__ == "Textarea"


BOUNDS = ("minLength", "maxLength", "minimum", "maximum", "multipleOf", "enum", "const")


@given(
    kind=st.sampled_from(["string", "integer", "number", "boolean", "array"]),
    bounds=st.dictionaries(
        st.sampled_from((*BOUNDS, "default", "description", "anyOf", "format")),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.lists(st.integers(), max_size=2)
        | st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    ),
)
@settings(max_examples=60, deadline=None)
def test_any_bounds_have_a_form(kind, bounds):
    form = make_form({"properties": {"a": {"type": kind, **bounds}}})
    assert set(form.editors) == {"a"}
