"""Schemas for `tool_schemas`, read out of what a server says when it refuses calls.

A refusal is only a hint: every schema is tried on the server before it is proposed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import gymnasium

from ors_gym._shown_text import clean
from ors_gym.env import ORSEnv
from ors_gym.env._step_rules import name_refusals
from ors_gym.errors import InvalidRequestError, SchemaError, ToolFailedError
from ors_gym.formats import provider_schema
from ors_gym.formats._schemas import resolve_schema
from ors_gym.protocol._replies import read_complaints
from ors_gym.spaces import ToolCallSpace, narrow_tools
from ors_gym.types import JSONObject, ToolCall, ToolSpec

TryCall: TypeAlias = Callable[[ToolCall], str]
"""Makes a call, and returns why it was refused; ``""`` if it ran."""

_ROUNDS: Final = 6
"""How often a tool is narrowed further: some servers name one problem at a time."""
_TRIES: Final = 8
"""Calls for which a schema is tried before it is believed."""
_MOST_VALUES: Final = 64
_MOST_CHARACTERS: Final = 4000


@dataclasses.dataclass(frozen=True)
class SchemaEvidence:
    """Why a schema is proposed for an argument.

    Args:
        tool: The tool's name.
        argument: The argument's name.
        schema: The schema that is proposed.
        words: The text that says so, usually that of a refusal.
        before: How many calls of the tool were refused, and of how many.
        after: The same, for calls that fit all the schemas of the tool.

    Example:
        >>> schema = {"enum": ["up", "down"]}
        >>> words = "direction must be up or down"
        >>> refused = {"before": (9, 10), "after": (0, 10)}
        >>> print(SchemaEvidence("move", "direction", schema, words, **refused))
        move.direction: {"enum": ["up", "down"]}
          refused before: 9 of 10; with it: 0 of 10
          read in: direction must be up or down
    """

    tool: str
    argument: str
    schema: JSONObject
    words: str
    before: tuple[int, int]
    after: tuple[int, int]

    def __str__(self) -> str:
        (refused, of), (still, of_after) = self.before, self.after
        return clean(
            f"{self.tool}.{self.argument}: {json.dumps(self.schema)}\n"
            f"  refused before: {refused} of {of}; with it: {still} of {of_after}\n"
            f"  read in: {self.words}"
        )


@dataclasses.dataclass(frozen=True)
class SuggestedSchemas:
    """What `suggest_schemas` found; ``print`` it.

    Args:
        tool_schemas: The table, as every env takes it.
        evidence: Why, for each of its schemas.
        unexplained: Tools whose calls are still refused, with the first refusal.

    Example:
        >>> print(SuggestedSchemas({"move": {"direction": {"enum": ["up"]}}}, (), {}))
        tool_schemas={"move": {"direction": {"enum": ["up"]}}}
    """

    tool_schemas: dict[str, dict[str, JSONObject]]
    evidence: tuple[SchemaEvidence, ...]
    unexplained: dict[str, str]

    def __str__(self) -> str:
        lines = [f"tool_schemas={json.dumps(self.tool_schemas)}"]
        lines += map(str, self.evidence)
        lines += [
            f"{tool}: refused, and no schema was found: {words}"
            for tool, words in self.unexplained.items()
        ]
        return clean("\n".join(lines))


def suggest_schemas(
    env: gymnasium.Env[Any, Any], *, calls: int = 20, seed: int = 0
) -> SuggestedSchemas:
    """Propose ``tool_schemas`` for an environment that refuses calls that fit.

    It **runs tools**: calls drawn from the schemas of each tool but the terminal one.
    It looks for constraints in what the server says of those that it refuses, and in
    the descriptions and the prompt ("one of up, down", "between 0 and 24", "exactly 5
    letters"). A schema is proposed only if the server takes the calls that fit it, and
    each value of an enumeration was accepted. Read the table before you use it: what
    nobody says cannot be found, nor can tools that answer "invalid" as a result.

    Args:
        env: An `ORSEnv`, or wrappers around one. It is reset as often as need be; reset
            it before you play on.
        calls: Calls of each tool that are counted before and after.
        seed: Seed of the calls, and of the first reset.

    Returns:
        The table with its evidence.

    Raises:
        InvalidRequestError: If the env is not one of an ORS server.
        ORSError: For an outage, unless the env truncates its episodes.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = gym.make("ors/guess")
        >>> suggest_schemas(env).tool_schemas  # its schemas say what it accepts
        {}
        >>> env.close()
    """
    inner = env.unwrapped
    if not isinstance(inner, ORSEnv):
        raise InvalidRequestError(
            f"{env} is not an env of an ORS server; make one with gym.make or ORSEnv"
        )
    player = _Player(inner, seed)
    searches = [
        _Search(tool, player.try_call, player.prompt, calls, seed)
        for tool in inner.tools
        if "terminal" not in tool
    ]
    found = [search for search in searches if search.run()]
    return SuggestedSchemas(
        {search.tool["name"]: search.parts for search in found if search.parts},
        tuple(one for search in found for one in search.evidence()),
        {search.tool["name"]: search.left for search in found if search.left},
    )


class _Player:
    """Makes calls in an env, in as many episodes as they need."""

    def __init__(self, env: ORSEnv, seed: int) -> None:
        self._env = env
        _, info = env.reset(seed=seed)
        self.prompt = " ".join(
            block["text"] for block in info["blocks"] if block["type"] == "text"
        )
        self._over = False
        # Its calls are meant to be refused, so nobody is warned that most are.
        env.client.catalog.is_first(name_refusals(env.environment))

    def try_call(self, call: ToolCall) -> str:
        if self._over:
            self._env.reset()
        try:
            *_, terminated, truncated, info = self._env.step(call)
        except ToolFailedError:
            return ""
        self._over = terminated or truncated
        refused = info["error_kind"] == "invalid_action"
        said = info["metadata"].get("original_error", info["error"])
        return " ".join(said.split()) if refused else ""


class _Constraint(NamedTuple):
    """A schema that a text may mean, and the values that are to be tried."""

    schema: JSONObject
    ends: tuple[Any, ...] = ()


class _Search:
    """Finds the schemas of one tool."""

    def __init__(
        self, tool: ToolSpec, try_call: TryCall, prompt: str, calls: int, seed: int
    ) -> None:
        self.tool = tool
        self.parts: dict[str, JSONObject] = {}
        self.left = ""
        """Why calls are refused even with these schemas."""
        self._words: dict[str, str] = {}
        self._try_call = try_call
        self._prompt = prompt
        self._calls = calls
        self._seed = seed
        schema = provider_schema(tool["input_schema"])
        self._arguments = {
            name: resolve_schema(part, schema, without_null=True)
            for name, part in schema["properties"].items()
        }
        self._before = self._after = (0, 0)

    def run(self) -> bool:
        """Search, and return whether any call was refused."""
        try:
            refusals = self._draw(self._calls, self._space({}))
        except SchemaError:
            # The tool cannot be sampled: the contract check says so.
            return False
        self._before = self._after = (len(refusals), self._calls)
        for _ in range(_ROUNDS):
            if not refusals or not self._narrow(refusals):
                break
            refusals = self._draw(self._calls, self._space({}))
            self._after = (len(refusals), self._calls)
        self.left = refusals[0] if refusals else ""
        return self._before[0] > 0

    def evidence(self) -> Iterator[SchemaEvidence]:
        name, before, after = self.tool["name"], self._before, self._after
        for argument, schema in self.parts.items():
            words = self._words[argument]
            yield SchemaEvidence(name, argument, schema, words, before, after)

    def _space(self, parts: Mapping[str, JSONObject]) -> ToolCallSpace:
        """Return the calls that fit the schemas so far and these."""
        table = {self.tool["name"]: {**self.parts, **parts}}
        return ToolCallSpace(narrow_tools([self.tool], table), seed=self._seed)

    def _draw(self, count: int, space: ToolCallSpace) -> list[str]:
        """Make calls, and return the refusals."""
        said = (self._try_call(space.sample()) for _ in range(count))
        return [words for words in said if words]

    def _narrow(self, refusals: Sequence[str]) -> bool:
        """Narrow each argument that is blamed and of which a schema is found."""
        blamed: dict[str, list[str]] = {}
        for words in dict.fromkeys(refusals):
            for argument, message in read_refusal(words, list(self._arguments)):
                blamed.setdefault(argument, []).append(message)
        found = [self._narrow_argument(one, said) for one, said in blamed.items()]
        return any(found)

    def _narrow_argument(self, argument: str, messages: list[str]) -> bool:
        listed = self._arguments[argument]
        others = [str(listed.get("description", "")), self.tool["description"]]
        tried: list[JSONObject] = []
        for text in dict.fromkeys([*messages, *others, self._prompt]):
            for constraint in read_constraints(text, listed.get("type")):
                if constraint.schema in tried:
                    continue
                tried.append(constraint.schema)
                part = self._try(argument, constraint)
                if part is not None and part != self.parts.get(argument):
                    self.parts[argument] = part
                    self._words[argument] = text[:_MOST_CHARACTERS]
                    return True
        return False

    def _try(self, argument: str, constraint: _Constraint) -> JSONObject | None:
        """Return the schema that the server agrees to, or None."""
        part = {**self.parts.get(argument, {}), **constraint.schema}
        try:
            with warnings.catch_warnings():
                # A schema that is not narrower than the server's is none to propose.
                warnings.simplefilter("error")
                space = self._space({argument: part})
            if "enum" in constraint.schema:
                values = [v for v in part["enum"] if self._takes(argument, v, space)]
                return {**part, "enum": values} if values else None
            if not all(self._takes(argument, end, space) for end in constraint.ends):
                return None
            refusals = self._draw(_TRIES, space)
        except (SchemaError, InvalidRequestError, UserWarning):
            # No value fits both this and what is known, or one does not fit that.
            return None
        kind = self._arguments[argument].get("type")
        for words in refusals:
            for blamed, message in read_refusal(words, list(self._arguments)):
                said = [one.schema for one in read_constraints(message, kind)]
                if blamed == argument and (constraint.schema in said or not said):
                    return None
        return part

    def _takes(self, argument: str, value: Any, space: ToolCallSpace) -> bool:
        call = space.sample()
        call["input"][argument] = value
        words = self._try_call(call)
        blamed = [name for name, _ in read_refusal(words, list(self._arguments))]
        return argument not in blamed


_PREFIX: Final = re.compile(r"^(?:Value error|Assertion failed), ")


def read_refusal(words: str, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Read which arguments a refusal is about, and what it says of each.

    Example:
        >>> read_refusal("row must be less than 3", ["row", "column"])
        [('row', 'row must be less than 3')]
    """
    if not words:
        return []
    located = read_complaints(words)
    # As pydantic prints an error, with its line ends as blanks. The bound keeps the
    # work linear, whatever a server says.
    names = "|".join(map(re.escape, arguments))
    printed = rf"(?:^|\s)({names})(?:\.\S+)? (.{{0,500}}?) \[type=\w+, input_value="
    located = located or (re.findall(printed, words) if names else [])
    found: list[tuple[str, str]] = []
    for place, said in located or [("", words)]:
        message = _PREFIX.sub("", said)
        first = re.split(r"[,.]", place)[0].strip("'\" ")
        named = [first] if first in arguments else _named_in(message, arguments)
        found += [(argument, message) for argument in named]
    return found


def _named_in(message: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments that a message names; all if it names none."""
    named = [one for one in arguments if re.search(rf"\b{re.escape(one)}\b", message)]
    return named or list(arguments)


# A float holds as many digits.
_NUMBER: Final = r"(-?\d{1,300}(?:\.\d{1,300})?)"
_RANGES: Final = (
    rf"{_NUMBER}\s*(?:and|to|\.\.\.?|-|through)\s*{_NUMBER}",
    rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]",
    rf"{_NUMBER}\s*<=?\s*\w+\s*<=?\s*{_NUMBER}",
)
_MORE: Final = "(?:greater|more|larger|longer)"
_LESS: Final = "(?:less|fewer|smaller|shorter)"
_NOT: Final = "(?:not|no)(?: be)?"
_BOUNDS: Final = {
    "minimum": f"at least|minimum|>=|≥|{_MORE} than or equal to|{_NOT} {_LESS} than",
    "maximum": f"at most|maximum|<=|≤|{_LESS} than or equal to|{_NOT} {_MORE} than|"
    "up to|not exceed",
    "exclusiveMinimum": f"{_MORE} than|above|over|>",
    "exclusiveMaximum": f"{_LESS} than|below|under|<",
}
_NAMED_BOUNDS: Final = {
    r"non-?negative": {"minimum": 0.0},
    r"\bpositive": {"exclusiveMinimum": 0.0},
}
_THINGS: Final = "(?:character|letter|digit|item|element)"
_SIZES: Final = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
}
_LONGEST: Final = 10_000
_CHARACTERS: Final = {
    r"upper.?case|capital": "A-Z",
    r"lower.?case": "a-z",
    r"alphanumeric": "A-Za-z0-9",
    r"hex": "0-9a-f",
    r"letter|alphabetic": "A-Za-z",
    r"digit|numeric|number|integer": "0-9",
}
_PATTERN: Final = re.compile(r"\^[^\s'\"`]+\$")


def read_constraints(text: str, kind: Any) -> Iterator[_Constraint]:
    """Read the schemas that a text may mean for a value of a JSON type.

    It is generous, since whatever is wrong is refused by the server.

    Example:
        >>> next(read_constraints("must be one of 'up', 'down'", "string")).schema
        {'enum': ['up', 'down']}
        >>> next(read_constraints("must be between 0 and 3", "integer")).schema
        {'minimum': 0, 'maximum': 3}
    """
    text = text[:_MOST_CHARACTERS]
    if kind == "number":
        for bounds in _find_bounds(text):
            ends = (value for key, value in bounds.items() if "exclusive" not in key)
            yield _Constraint(dict(bounds), tuple(ends))
    elif kind == "integer":
        for bounds in _find_bounds(text):
            yield from _read_range(_to_whole_numbers(bounds))
    elif kind in _SIZES:
        if kind == "string":
            yield from _read_values(text, kind)
        yield from _read_sizes(text, kind)
    if kind in ("integer", "number"):
        # After the ranges: the ends of a range look like two values.
        yield from _read_values(text, kind)


def _find_bounds(text: str) -> Iterator[Mapping[str, float]]:
    for pattern in _RANGES:
        for low, high in re.findall(pattern, text):
            yield {"minimum": float(low), "maximum": float(high)}
    single: list[Mapping[str, float]] = []
    for key, words in _BOUNDS.items():
        pattern = rf"(?:{words})(?: of| is)?\s*{_NUMBER}"
        found = re.findall(pattern, text, re.IGNORECASE)
        single += [{key: float(value)} for value in found]
    for words, bounds in _NAMED_BOUNDS.items():
        if re.search(words, text, re.IGNORECASE):
            single.append(bounds)
    if len(single) > 1:
        yield {key: value for one in single for key, value in one.items()}
    yield from single


def _to_whole_numbers(bounds: Mapping[str, float]) -> dict[str, int]:
    shifts = {"exclusiveMinimum": 1, "exclusiveMaximum": -1}
    names = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
    return {
        names.get(key, key): int(value) + shifts.get(key, 0)
        for key, value in bounds.items()
    }


def _read_range(bounds: Mapping[str, int]) -> Iterator[_Constraint]:
    yield _Constraint(dict(bounds), tuple(bounds.values()))
    if len(bounds) == 2:
        # Python's own ranges leave out their end.
        low, high = bounds["minimum"], bounds["maximum"]
        for ends in ((low, high - 1), (low + 1, high), (low + 1, high - 1)):
            yield _Constraint({"minimum": ends[0], "maximum": ends[1]}, ends)


def _read_sizes(text: str, kind: str) -> Iterator[_Constraint]:
    sizes = list(_find_sizes(text, *_SIZES[kind]))
    if kind == "string":
        yield from (_Constraint({"pattern": one}) for one in _PATTERN.findall(text))
        for words, characters in _CHARACTERS.items():
            if re.search(words, text, re.IGNORECASE):
                for size in [*sizes, {"minLength": 1, "maxLength": 8}]:
                    low, high = size.get("minLength", 1), size.get("maxLength", "")
                    yield _Constraint({"pattern": f"^[{characters}]{{{low},{high}}}$"})
    yield from map(_Constraint, sizes)


def _find_sizes(text: str, least: str, most: str) -> Iterator[JSONObject]:
    exact = rf"(?:exactly|of length|length of) {_NUMBER}"
    for size in re.findall(exact, text, re.IGNORECASE):
        yield {least: int(float(size)), most: int(float(size))}
    for bounds in map(_to_whole_numbers, _find_bounds(text)):
        if all(0 <= size <= _LONGEST for size in bounds.values()):
            names = {"minimum": least, "maximum": most}
            yield {names[key]: size for key, size in bounds.items()}
    for size in re.findall(rf"{_NUMBER}[- ]{_THINGS}", text, re.IGNORECASE):
        yield {least: int(float(size)), most: int(float(size))}
    if re.search(rf"\b(?:single|one) (?:\S+ )?{_THINGS}", text, re.IGNORECASE):
        yield {least: 1, most: 1}
    if re.search(r"empty|blank", text, re.IGNORECASE):
        yield {least: 1}


_BRACKETS: Final = re.compile(r"[\[({]([^\[\](){}]+)[\])}]")
_QUOTED: Final = re.compile(r"(?<!\w)(['\"`])([^'\"`\n]{1,60})\1(?!\w)")
_SENTENCE: Final = re.compile(r"[^.;:\n]+")
_SEPARATOR: Final = re.compile(r"\s*[,/|]\s*(?:or\s+|and\s+)?|\s+(?:or|and)\s+")


def _read_values(text: str, kind: Any) -> Iterator[_Constraint]:
    """Read the enumerations that a text may hold, the likeliest first."""
    runs = [_SEPARATOR.split(run) for run in _BRACKETS.findall(text)]
    runs.append([word for _, word in _QUOTED.findall(text)])
    for sentence in _SENTENCE.findall(text):
        words = _SEPARATOR.split(sentence.strip())
        if len(words) > 1:
            # "It must be one of up, down or left here."
            first, last = words[0].split()[-1:], words[-1].split()[:1]
            runs.append([*first, *words[1:-1], *last])
    seen: list[list[Any]] = []
    for run in runs:
        values = list(dict.fromkeys(_to_values(run, kind)))[:_MOST_VALUES]
        if len(values) > 1 and values not in seen:
            seen.append(values)
            yield _Constraint({"enum": values})


def _to_values(words: Sequence[str], kind: Any) -> Iterator[Any]:
    for word in words:
        stripped = word.strip().strip("'\"` ")
        if kind == "string" and stripped:
            yield stripped
        elif kind in ("integer", "number") and re.fullmatch(_NUMBER, stripped):
            yield float(stripped) if kind == "number" else int(float(stripped))
