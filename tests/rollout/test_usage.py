"""What policies say that they used, and what that costs."""

from typing import Any

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Episode, Turn
from ors_gym.rollout._tokens import TurnTokens
from ors_gym.rollout._usage import Prices, read_usage

pytestmark = pytest.mark.unit

OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 10,
    "total_tokens": 110,
    "prompt_tokens_details": {"cached_tokens": 60},
}
ANTHROPIC = {
    "input_tokens": 10,
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 30,
    "output_tokens": 10,
}
LITELLM = OPENAI | {
    # Anthropic's names beside OpenAI's, whose prompt_tokens hold the cache as well.
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 30,
}
RESPONSES = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 10,
}
USED = {"input_tokens": 100, "cached_input_tokens": 60, "output_tokens": 10}


@pytest.mark.parametrize("told", [OPENAI, ANTHROPIC, LITELLM, RESPONSES, USED])
def test_every_api_is_read_under_the_same_names(told):
    assert read_usage(told) == USED


@pytest.mark.parametrize(
    "told",
    [None, 3, [], {"prompt_tokens": "many"}, {"input_tokens": True}]
    + [{"input_tokens": number} for number in (-1, 1e300, float("nan"))],
)
def test_what_is_no_usage_is_none(told):
    assert read_usage(told) == {}


def test_an_episode_uses_what_its_turns_used_unless_it_says_so_itself():
    tokens = TurnTokens([1, 2], [3], starts_sequence=True)
    turns = [Turn([], extra={"usage": OPENAI}), Turn([], tokens=tokens), Turn([])]
    episode = Episode("math", turns=turns)
    assert episode.usage == {**USED, "input_tokens": 102, "output_tokens": 11}
    assert episode.metrics()["input_tokens"] == 102
    episode.extra = {"usage": {"input_tokens": 5, "cost_usd": 0.5}}
    assert episode.usage == {"input_tokens": 5, "cost_usd": 0.5}
    episode.cost = 0.25
    assert Episode.from_json(episode.to_json()).usage["cost"] == 0.25


TABLE = {
    "gpt-5": {"input": 2.0, "cached_input": 1.0, "output": 10.0},
    "gpt-5-mini": {"input": 0.2, "output": 1.0},
}


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        ("gpt-5", (40 * 2 + 60 * 1 + 10 * 10) / 1e6),
        ("gpt-5-2025-08-07", 240e-6),
        ("openai/gpt-5", 240e-6),
        ("openai/gpt-5:latest", 240e-6),
        ("gpt-5-mini", 30e-6),
        ("gpt-5-mini-2025-08-07", 30e-6),
        ("gpt-5-pro", None),
        ("gpt-50", None),
        ("", None),
    ],
)
def test_a_price_is_of_a_model_and_of_its_versions_alone(model, cost):
    assert Prices(TABLE).find_cost(USED, model) == (cost and pytest.approx(cost))


def test_any_model_and_the_only_model_have_a_price():
    only = {"gpt-5": TABLE["gpt-5"]}
    assert Prices(only).find_cost(USED, "") == pytest.approx(240e-6)
    assert Prices(only).find_cost(USED, "qwen3") is None
    other = TABLE | {"*": {"input": 0, "output": 1}}
    assert Prices(other).find_cost(USED, "qwen3") == pytest.approx(10e-6)
    assert Prices(other).find_cost({"cost_usd": 3.0}, "gpt-5") is None


def test_a_library_keeps_prices():
    prices = Prices("genai-prices")
    used = {"input_tokens": 1_000_000, "output_tokens": 0}
    cost = prices.find_cost(used, "gpt-4o-mini-2024-07-18")
    assert cost == pytest.approx(0.15)
    assert prices.find_cost(used, "openai/gpt-4o-mini") == cost
    cached = prices.find_cost(used | {"cached_input_tokens": 10**6}, "gpt-4o")
    assert cached is not None
    assert cached < 2.5
    for unknown in ("no-such-model", "", "no-such-provider/gpt-4o"):
        assert prices.find_cost(used, unknown) is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        3,
        "litellm",
        {"gpt-5": 3},
        {"gpt-5": {"input": 1}},
        {"gpt-5": {"input": 1, "output": -1}},
        {"gpt-5": {"input": 1, "output": 1, "inptu": 1}},
    ],
)
def test_a_table_that_cannot_be_right_is_refused(given: Any):
    with pytest.raises(InvalidRequestError, match="price"):
        Prices(given)
