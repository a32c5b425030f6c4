"""What policies say that they used: tokens and costs, in one set of names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from ors_gym.errors import InvalidRequestError, import_extra
from ors_gym.rollout._tokens import TurnTokens

Usage: TypeAlias = dict[str, float]
"""Numbers by name, among them ``input_tokens``, ``cached_input_tokens`` (a part of
these), ``output_tokens``, ``cost`` and ``cost_usd``."""

_PLACES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "input_tokens": (("input_tokens",), ("prompt_tokens",)),
    "cached_input_tokens": (
        ("cached_input_tokens",),
        ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"),
        ("cache_read_input_tokens",),
    ),
    "output_tokens": (("output_tokens",), ("completion_tokens",)),
    "cost_usd": (("cost_usd",), ("cost",)),
}
"""Where the APIs of OpenAI, Anthropic and OpenRouter say what a call used."""
_BESIDE_INPUT: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Input that Anthropic does not count as ``input_tokens``."""
_MOST: Final = 1e15
"""What is more is no number of tokens."""
_LARGEST: Final = sys.float_info.max
_PER: Final = 1e6
_ANY_MODEL: Final = "*"
_VERSION: Final = re.compile(r"(?:[-@:](?:v?\d[\d.-]*|latest))?")
LIBRARY: Final = "genai-prices"


def read_usage(told: Any) -> Usage:
    """Read the ``usage`` of an answer of a model's API; of anything else nothing."""
    if not isinstance(told, Mapping):
        return {}
    used: Usage = {}
    for name, places in _PLACES.items():
        found = (_number_at(told, place) for place in places)
        number = next((one for one in found if one is not None), None)
        if number is not None:
            used[name] = number
    if _number_at(told, ("input_tokens",)) is not None:
        beside = (_number_at(told, (name,)) for name in _BESIDE_INPUT)
        used["input_tokens"] += sum(one for one in beside if one is not None)
    return used


def read_numbers(told: Any) -> Usage:
    """Return the finite numbers of an object, by name; of anything else nothing."""
    return {
        str(name): value
        for name, value in (told.items() if isinstance(told, Mapping) else ())
        # The comparison is False for NaN, the infinities and what no float can hold.
        if _is_number(value) and -_LARGEST <= value <= _LARGEST
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_at(told: Any, place: tuple[str, ...]) -> float | None:
    for name in place:
        told = told.get(name) if isinstance(told, Mapping) else None
    return told if _is_number(told) and 0 <= told < _MOST else None


def usage_of_turn(extra: Any, tokens: TurnTokens | None) -> Usage:
    """Return what a turn used: as its ``extra`` says, else by its tokens."""
    if extra is tokens is None:
        # Most policies say nothing, and each turn is looked at.
        return {}
    used = read_usage(extra.get("usage")) if isinstance(extra, Mapping) else {}
    if not used and tokens is not None:
        read, sampled = len(tokens.prompt_ids), len(tokens.ids)
        return {"input_tokens": read, "output_tokens": sampled}
    return used


def add_up(parts: Iterable[Mapping[str, float]]) -> Usage:
    total: Usage = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def count_tokens(used: Mapping[str, float]) -> int:
    return int(used.get("input_tokens", 0) + used.get("output_tokens", 0))


def find_cost(used: Mapping[str, float]) -> float | None:
    """Return a cost by prices, else the one that was reported; None if neither."""
    return used.get("cost", used.get("cost_usd"))


class Prices:
    """What tokens cost, by model.

    Args:
        given: For each model ``input``, ``output`` and maybe ``cached_input``, per
            million tokens; the model ``*`` is any other. Or ``genai-prices``, the
            library that keeps a table.

    Raises:
        InvalidRequestError: If it is neither.
        MissingExtraError: If the library is not installed.
    """

    def __init__(self, given: Any) -> None:
        self._table: dict[str, tuple[float, float, float]] = {}
        self._library: Any = None
        if given == LIBRARY:
            self._library = import_library()
        elif isinstance(given, Mapping) and given:
            self._table = {name: _read_price(name, one) for name, one in given.items()}
        else:
            raise InvalidRequestError(
                "prices= takes a table such as "
                '{"gpt-5": {"input": 1.25, "output": 10}}, per million tokens, or '
                f"{LIBRARY!r}; not {given!r:.100}"
            )

    def find_cost(self, used: Mapping[str, float], model: str) -> float | None:
        """Return what a model's tokens cost; None for a model without a price."""
        if not used.keys() & {"input_tokens", "output_tokens"}:
            return None
        if self._library is not None:
            return _ask_library(self._library, used, model)
        price = self._find(model)
        if price is None:
            return None
        read, cached = used.get("input_tokens", 0), used.get("cached_input_tokens", 0)
        cached = min(cached, read)
        amounts = read - cached, cached, used.get("output_tokens", 0)
        return sum(a * each for a, each in zip(amounts, price, strict=True)) / _PER

    def _find(self, model: str) -> tuple[float, float, float] | None:
        """Find a model's price; APIs add a date to a name, and hubs a provider."""
        if not model and len(self._table) == 1:
            return next(iter(self._table.values()))
        for name in (model, model.rpartition("/")[2]):
            known = [one for one in self._table if _is_version_of(name, one)]
            if known:
                return self._table[max(known, key=len)]
        return self._table.get(_ANY_MODEL)


def _is_version_of(name: str, model: str) -> bool:
    """Say whether a name is a model's, or that with a date or a version behind it."""
    return name.startswith(model) and bool(_VERSION.fullmatch(name, len(model)))


def _read_price(name: Any, given: Any) -> tuple[float, float, float]:
    numbers = {key: value for key, value in read_numbers(given).items() if value >= 0}
    needed, known = {"input", "output"}, {"input", "output", "cached_input"}
    if not isinstance(name, str) or not needed <= numbers.keys() <= known:
        raise InvalidRequestError(
            f"the price of {name!r:.100} is {given!r:.100}; it must have input and "
            "output, and may have cached_input, in any unit per million tokens"
        )
    read = numbers["input"]
    return read, numbers.get("cached_input", read), numbers["output"]


def import_library() -> Any:
    """Import the library that keeps prices."""
    return import_extra("genai_prices", "prices", f'prices="{LIBRARY}"')


def _ask_library(library: Any, used: Mapping[str, float], model: str) -> float | None:
    usage = library.Usage(
        input_tokens=int(used.get("input_tokens", 0)),
        cache_read_tokens=int(used.get("cached_input_tokens", 0)),
        output_tokens=int(used.get("output_tokens", 0)),
    )
    provider, _, name = model.rpartition("/")
    try:
        found = library.calc_price(usage, name, provider_id=provider or None)
    except (LookupError, ValueError):
        return None
    return float(found.total_price)
