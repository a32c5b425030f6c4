"""What `show` and the cards make of every kind of value, without a browser."""

from __future__ import annotations

import base64
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ors_gym
from ors_gym import display
from ors_gym.cards import conversation_card, tools_card
from ors_gym.cards.listing import describe_schema
from ors_gym.rollout.card import episode_entries
from ors_gym.transcript import Entry
from tests.display.episodes import ordinary_episode, picture

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "role", "text", "name", "input_schema", "blocks"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=JSON, title=st.text(max_size=20))
def test_any_json_is_shown(value: Any, title: str) -> None:
    shown = ors_gym.show(value, title)
    assert shown._repr_html_().count("<script") == 0
    assert isinstance(repr(shown), str)


@given(schema=JSON)
def test_any_schema_is_described(schema: Any) -> None:
    assert describe_schema(schema)
    tool: Any = {"name": "x", "description": None, "input_schema": schema}
    assert tools_card([tool]).endswith("</div>")


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
def test_each_kind_of_value_has_its_card(value: Any, title: str) -> None:
    assert f'"ors-title">{title}<' in ors_gym.show(value)._repr_html_()


def test_calls_that_were_not_run_and_turns_without_a_call_are_shown() -> None:
    episode = ordinary_episode(2)
    episode.turns[-1].actions.append({"tool": "late", "input": {}})
    episode.turns[-1].call_ids.append("late")
    episode.turns.append(ors_gym.Turn([], message="I give up."))
    calls = [entry.call for entry in episode_entries(episode)]
    assert calls[-2:] == ["late()", ""]
    card = episode._repr_html_()
    assert "not run" in card
    assert "I give up." in card


def test_a_card_stays_small_whatever_the_episode() -> None:
    entries = [Entry("x" * 50_000, call="look()") for _ in range(3000)]
    assert len(conversation_card("long", entries)) < 6_000_000
    noise = picture(size=(600, 600))
    padded = base64.b64decode(noise["data"]) + bytes(1_500_000)
    noise["data"] = base64.b64encode(padded).decode()
    blocks = [noise] * 20
    card = conversation_card("images", [Entry("", blocks)])
    assert len(card) < 12_000_000
    assert 1 <= card.count("<img") <= 4
    assert "[image: image/png, 600x600]" in card


def test_an_env_shows_its_episode_and_its_tools() -> None:
    env = gym.make("ors/maze", render_mode="ansi")
    assert "not reset yet" in str(display.env_card(env))
    env.reset(seed=3)
    env.step({"tool": "move", "input": {"direction": "right"}})
    card = str(display.env_card(env))
    for part in ("task 3 of train", "move(direction=", "<img", "1 tool", "reward"):
        assert part in card
    assert ors_gym.show(env)._repr_html_() == card
    env.close()
    assert display.env_card(gym.make("CartPole-v1")) is None


def test_envs_without_a_transcript_show_their_tools() -> None:
    env = gym.make("ors/guess")
    card = str(display.env_card(env))
    assert "render_mode=" in card
    assert "integer, at least" in card
    env.close()
    envs: Any = gym.make_vec("ors/guess", num_envs=2)
    assert "2 envs" in str(display.env_card(envs))
    envs.close()


def test_what_is_shown_in_a_terminal_does_not_steer_it() -> None:
    tool = {"name": "x\x1b[2J", "description": "\x07", "input_schema": None}
    for value in ([tool], [{"type": "text", "text": "\x1b[2J"}]):
        assert "\x1b" not in repr(ors_gym.show(value))
