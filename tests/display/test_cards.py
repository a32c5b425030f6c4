"""The card of every kind of value, without a browser; what a terminal shows of it."""

import base64
import sys
import types
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ors_gym
from ors_gym.cli import _report_show_replay as commands
from ors_gym.display import _cards as cards
from ors_gym.display import _show, register_formatters
from ors_gym.display._cards import (
    conversation_card,
    env_card,
    episode_entries,
    tools_card,
)
from ors_gym.display._picture import make_card
from ors_gym.display._play import _in_a_notebook
from ors_gym.display._transcript import Entry
from ors_gym.formats._schemas import describe_schema
from tests.display.episodes import ordinary_episode, picture
from tests.support.processes import run_python

KEYS = ["type", "role", "text", "name", "input_schema", "blocks"]
NAMES = st.sampled_from(KEYS) | st.text(max_size=5)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)
KEYWORDS = (
    *("type", "enum", "const", "anyOf", "oneOf", "items", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"),
    *("maxLength", "pattern", "format", "default", "description"),
)


def tool_of(schema: Any) -> Any:
    return {"name": "x", "description": None, "input_schema": schema}


def html_of(value: Any, title: str = "") -> str:
    return ors_gym.show(value, title)._repr_html_()


@given(value=JSON, title=st.text(max_size=20))
def test_any_json_is_shown(value, title):
    assert "<script" not in html_of(value, title)
    assert isinstance(repr(ors_gym.show(value, title)), str)


@given(
    schema=JSON,
    required=JSON,
    properties=st.dictionaries(
        st.text(max_size=3),
        st.dictionaries(st.sampled_from(KEYWORDS), JSON, max_size=5) | JSON,
        max_size=3,
    ),
)
def test_any_schema_is_described(schema, required, properties):
    of_fields = {"type": "object", "properties": properties, "required": required}
    for candidate in (schema, of_fields):
        assert tools_card([tool_of(candidate)]).endswith("</div>")
    assert all(map(describe_schema, (schema, *properties.values())))


@pytest.mark.parametrize("required", [True, 5, "a", {"a": 1}, None])
def test_only_a_list_of_names_makes_arguments_required(required):
    schema = {"properties": {"a": {"type": "integer"}}, "required": required}
    assert "integer, optional" in tools_card([tool_of(schema)])


@pytest.mark.timeout(60)
def test_an_image_full_of_blanks_is_read_once():
    # A pattern that tries the blanks again from each place would take hours.
    data = " " * 2_000_000 + "!"
    block = {"type": "image", "mimeType": "image/png", "data": data}
    assert "<img" not in html_of(block)
    broken = picture()
    broken["data"] = "\n  ".join(broken["data"])
    assert "<img" in html_of(broken)


@pytest.mark.parametrize("media_type", [{}, [], None, 5, ["image/png"]])
def test_an_image_without_a_media_type_is_what_its_bytes_say(media_type):
    assert "<img" in html_of({**picture(), "mimeType": media_type})
    unknown = {"type": "image", "data": "AAAA", "mimeType": media_type}
    assert "<img" not in html_of(unknown)


@pytest.mark.parametrize("missing", ["get_ipython", "display_formatter"])
def test_a_stand_in_for_ipython_does_no_harm(missing, monkeypatch):
    module: Any = types.ModuleType("IPython")
    if missing == "display_formatter":
        module.get_ipython = object
    monkeypatch.setitem(sys.modules, "IPython", module)
    register_formatters()
    assert not _in_a_notebook()


def test_importing_the_package_loads_nothing_that_shows():
    code = (
        "import sys, ors_gym; names = set(sys.modules)\n"
        "import ors_gym.display\n"
        "print({'IPython', 'ors_gym.display'} & names,"
        " {'PIL', 'ipywidgets', 'ors_gym.env'} & set(sys.modules))"
    )
    assert run_python("-c", code).stdout == "set() set()\n"


def test_an_env_that_cannot_be_shown_says_so(monkeypatch):
    def fail(_: Any) -> str:
        raise TypeError("argument of type 'bool' is not <iterable>")

    monkeypatch.setattr(cards, "env_card", fail)
    shown = _show._EnvFormatter(None)(gym.make("CartPole-v1"))
    assert "TypeError: argument of type &#x27;bool&#x27; is not &lt;i" in str(shown)


@pytest.mark.parametrize(
    ("error_kind", "finished", "truncated", "said"),
    [
        ("", False, False, ""),
        ("", False, True, "truncated"),
        ("", True, True, "finished"),
        ("tool_failed", True, False, "tool_failed"),
    ],
)
def test_cards_and_commands_say_the_same_end(error_kind, finished, truncated, said):
    episode = ordinary_episode(1)
    step = episode.steps[0]
    step.error_kind, step.finished, step.truncated = error_kind, finished, truncated
    assert list(episode_entries(episode))[-1].note == said
    ending = f", {said}]" if said else "]"
    assert commands._write_down(episode).endswith(f"[reward 0{ending}")


@pytest.mark.parametrize(
    ("entry", "mood"),
    [
        (Entry("prompt", reward=1.0), "accent"),
        (Entry("", call="a()"), "muted"),
        (Entry("", call="a()", reward=1.0, failed=True), "good"),
        (Entry("", call="a()", reward=-1.0), "bad"),
        (Entry("", call="a()", failed=True), "bad"),
    ],
)
def test_cards_and_pictures_have_the_mood_of_a_step(entry, mood):
    assert entry.mood == mood
    assert f"ors-edge-{mood}" in conversation_card("x", [entry])
    assert make_card(entry, 600, 300).edge == mood


@pytest.mark.parametrize(
    ("value", "title"),
    [
        ([{"name": "a", "description": "b", "input_schema": None}], "1 tool"),
        ([{"type": "text", "text": "hello"}], "prompt"),
        ({"type": "text", "text": "hello"}, "prompt"),
        ([{"role": "user", "blocks": [{"type": "text", "text": "hi"}]}], "messages"),
        ([{"question": "2 + 2"}, {"question": "3 + 3"}], "2 tasks"),
        ({"question": "2 + 2"}, "1 task"),
        ("text", "str"),
    ],
)
def test_each_kind_of_value_has_its_card(value, title):
    assert f'"ors-title">{title}<' in html_of(value)


def test_calls_that_were_not_run_and_turns_without_a_call_are_shown():
    episode = ordinary_episode(2)
    episode.turns[-1].actions.append({"tool": "late", "input": {}})
    episode.turns[-1].call_ids.append("late")
    episode.turns.append(ors_gym.Turn([], message="I give up."))
    calls = [entry.call for entry in episode_entries(episode)]
    assert calls[-2:] == ["late()", ""]
    for said in ("not run", "I give up."):
        assert said in episode._repr_html_()


def test_a_card_stays_small_whatever_the_episode():
    entries = [Entry("x" * 50_000, call="look()") for _ in range(3000)]
    assert len(conversation_card("long", entries)) < 6_000_000
    noise = picture(size=(600, 600))
    padded = base64.b64decode(noise["data"]) + bytes(1_500_000)
    noise["data"] = base64.b64encode(padded).decode()
    card = conversation_card("images", [Entry("", [noise] * 20)])
    assert len(card) < 12_000_000
    assert 1 <= card.count("<img") <= 4
    assert "[image: image/png, 600x600]" in card


def test_a_card_stays_small_whatever_the_schema():
    members = {
        f"member {n}": {"type": "integer", "title": "x" * 20} for n in range(20_000)
    }
    schema: dict[str, Any] = {"properties": members}
    card = tools_card([{"name": "t", "description": "", "input_schema": schema}])
    assert "19,900 more" in card
    assert len(card) < 200_000


def test_an_env_shows_its_episode_and_its_tools():
    env = gym.make("ors/maze", render_mode="ansi")
    assert "not reset yet" in str(env_card(env))
    env.reset(seed=3)
    env.step({"tool": "move", "input": {"direction": "right"}})
    card = str(env_card(env))
    for part in ("task 3 of train", "move(direction=", "<img", "1 tool", "reward"):
        assert part in card
    assert html_of(env) == card
    env.close()
    assert env_card(gym.make("CartPole-v1")) is None


def test_envs_without_a_transcript_show_their_tools(closing):
    env = gym.make("ors/guess")
    card = str(env_card(env))
    assert "render_mode=" in card
    assert "integer, at least" in card
    env.close()
    envs = closing(gym.make_vec("ors/guess", num_envs=2))
    assert "2 envs" in str(env_card(envs))


def test_what_is_shown_in_a_terminal_does_not_steer_it():
    tool = {"name": "x\x1b[2J", "description": "\x07", "input_schema": None}
    for value in ([tool], [{"type": "text", "text": "\x1b[2J"}]):
        assert "\x1b" not in repr(ors_gym.show(value))


def test_a_terminal_tool_is_shown_as_one():
    tool: Any = {"name": "submit", "description": "", "input_schema": None}
    assert "(terminal)" not in tools_card([tool])
    tool["terminal"] = "both"
    assert "submit (terminal)" in tools_card([tool])
