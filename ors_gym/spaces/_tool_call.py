"""Tool calls as Gymnasium spaces: as JSON objects, and as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from random import Random
from typing import Any, Self, TypeAlias, cast

import numpy as np
from gymnasium.spaces import Space, Text
from gymnasium.vector.utils import batch_differing_spaces, create_empty_array
from numpy.typing import NDArray

from ors_gym.errors import SchemaError
from ors_gym.formats._json import flatten_json, unflatten_json
from ors_gym.spaces._text import DEFAULT_MAX_LENGTH, FreeText
from ors_gym.spaces.json_schema import CompiledSchema
from ors_gym.types import ToolCall, ToolSpec

ToolWeights: TypeAlias = Mapping[str, float] | Sequence[float] | NDArray[Any]
"""A number per tool: by name, or in the order of ``tools``."""

_NO_ARGUMENTS = {"type": "object", "maxProperties": 0}


class ToolCallSpace(Space[ToolCall]):
    """The calls that a set of tools takes: ``{"tool": name, "input": {...}}``.

    ``sample()`` draws a tool, then an input that its JSON Schema allows.
    ``contains()`` asks jsonschema, by the draft that ``$schema`` names, else by
    2020-12; formats are not asserted. A tool without a schema takes ``{}``. The tools
    of an ORS server may change with the session: ``update()`` replaces them in place
    and keeps the seed.

    A schema comes from the server, so it is read only when it is needed: one that
    cannot be used raises when it is sampled or checked against. References to other
    documents are never fetched. The work of sampling, listing and checking is counted,
    and so are the steps of a ``pattern``. A schema that causes too much raises, too,
    and the message names the part. Stepping an env uses no schema.

    Args:
        tools: The tools as the server lists them. Two of one name are alternatives.
        seed: Seed of ``sample()``, or the generator itself.

    Raises:
        SchemaError: If a tool has no name.

    Example:
        >>> schema = {
        ...     "type": "object",
        ...     "properties": {"number": {"enum": [1, 2, 3]}},
        ...     "required": ["number"],
        ... }
        >>> guess = {"name": "guess", "description": "", "input_schema": schema}
        >>> give_up = {"name": "give_up", "description": "", "input_schema": None}
        >>> space = ToolCallSpace([guess, give_up], seed=1)
        >>> space.sample() in space
        True
        >>> space.sample(mask={"guess": 0})
        {'tool': 'give_up', 'input': {}}
        >>> {"tool": "guess", "input": {"number": 4}} in space
        False
        >>> [call["input"] for call in space.enumerate()]
        [{'number': 1}, {'number': 2}, {'number': 3}, {}]
    """

    def __init__(
        self,
        tools: Iterable[ToolSpec | Mapping[str, Any]],
        *,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)
        self._tools: tuple[ToolSpec, ...] = ()
        self._identity: str | None = None
        self._schemas: tuple[CompiledSchema, ...] = ()
        self.update(tools)

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The tools, in the server's order."""
        return self._tools

    @property
    def is_np_flattenable(self) -> bool:
        """False: a tool call is not a vector of numbers."""
        return False

    def update(self, tools: Iterable[ToolSpec | Mapping[str, Any]]) -> None:
        """Take over the tools of another session; the seed and the state stay.

        Args:
            tools: The tools as the server lists them.

        Raises:
            SchemaError: If a tool has no name; the space is then unchanged.
        """
        listed = cast("tuple[ToolSpec, ...]", tuple(tools))
        for index, tool in enumerate(listed):
            if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
                raise SchemaError(
                    f"tool {index} of the list has no name: {tool!r:.200}"
                )
        identity = _identity(listed)
        if identity is not None and identity == self._identity:
            self._tools = listed
            return
        schemas = tuple(
            CompiledSchema(
                _input_schema(tool), f"tool {tool['name']!r}: input", only_objects=True
            )
            for tool in listed
        )
        # The identity goes first and comes last, so that an update after one that was
        # interrupted sets everything.
        self._identity = None
        self._tools, self._schemas = listed, schemas
        self._identity = identity

    def sample(
        self, mask: ToolWeights | None = None, probability: ToolWeights | None = None
    ) -> ToolCall:
        """Draw a tool, each allowed one as likely as the next, and an input for it.

        Args:
            mask: Which tools may be drawn: 0 or 1 for each tool in the order of
                ``tools``, or by name (``{"submit": 0}``). A tool that is not named is
                allowed.
            probability: How likely each tool is, in order or by name. A tool that is
                not named is never drawn. The probabilities add up to 1.

        Returns:
            A call that ``contains`` accepts.

        Raises:
            ValueError: If the mask or the probabilities do not fit the tools.
            SchemaError: If no tool is allowed, or an allowed tool's schema cannot
                be sampled; the message names the tool and the place.
        """
        weights = self._weights(mask, probability)
        allowed = [index for index, weight in enumerate(weights) if weight > 0]
        if not allowed:
            raise SchemaError(
                "there is no tool to sample: the server lists none"
                if not self._tools
                else f"there is no tool to sample: the mask forbids all "
                f"{len(self._tools)}"
            )
        # All allowed tools are prepared, so that a schema that cannot be sampled fails
        # the first draw, whichever tool is drawn.
        for index in allowed:
            self._schemas[index].prepare()
        # One generator per draw: drawing from numpy's is ten times slower.
        random = Random(int(self.np_random.integers(2**63)))  # noqa: S311
        if len(allowed) == 1:
            index = allowed[0]
        elif probability is None:
            index = allowed[int(random.random() * len(allowed))]
        else:
            (index,) = random.choices(range(len(weights)), weights)
        return {
            "tool": self._tools[index]["name"],
            "input": self._schemas[index].draw(random),
        }

    def _weights(
        self, mask: ToolWeights | None, probability: ToolWeights | None
    ) -> Sequence[float]:
        if mask is not None and probability is not None:
            raise ValueError("give either `mask` or `probability`, not both")
        if probability is not None:
            weights = self._per_tool(probability, "probability", 0.0)
            if not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
                raise ValueError(f"the probabilities add up to {sum(weights)}, not 1")
            return weights
        if mask is not None:
            return self._per_tool(mask, "mask", 1.0)
        return [1.0] * len(self._tools)

    def _per_tool(
        self, values: ToolWeights, argument: str, default: float
    ) -> list[float]:
        names = [tool["name"] for tool in self._tools]
        if isinstance(values, Mapping):
            unknown = sorted(set(values) - set(names))
            if unknown:
                raise ValueError(
                    f"`{argument}` names unknown tools {unknown}; there are {names}"
                )
            given = [values.get(name, default) for name in names]
        else:
            given = list(values)
            if len(given) != len(names):
                raise ValueError(
                    f"`{argument}` has {len(given)} values for {len(names)} tools: "
                    f"{names}"
                )
        try:
            weights = [float(value) for value in given]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"`{argument}` has a value that cannot be: {error}"
            ) from None
        if not all(0.0 <= weight <= 1.0 for weight in weights):
            raise ValueError(f"`{argument}` has values outside of [0, 1]: {weights}")
        return weights

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a call of one of the tools with a valid input.

        Args:
            x: Anything; only ``{"tool": str, "input": dict}`` can be a member.

        Raises:
            SchemaError: If the tool's schema is not a JSON Schema.
        """
        if not isinstance(x, dict) or x.keys() != {"tool", "input"}:
            return False
        name, value = x["tool"], x["input"]
        if not isinstance(name, str) or not isinstance(value, dict):
            return False
        return any(
            schema.is_valid(value)
            for tool, schema in zip(self._tools, self._schemas, strict=True)
            if tool["name"] == name
        )

    def enumerate(self, limit: int = 1000) -> list[ToolCall]:
        """List every call, if there are at most ``limit``.

        An optional argument with a default is always given, since leaving it out
        means the same; arguments that no schema names are not made up.

        Args:
            limit: Number of calls that is still acceptable.

        Returns:
            The calls, tool by tool in the order of ``tools``.

        Raises:
            SchemaError: If there are more, or infinitely many; the message names
                the tool and the place.
        """
        calls: list[ToolCall] = []
        for tool, schema in zip(self._tools, self._schemas, strict=True):
            inputs = schema.enumerate(limit)
            calls.extend({"tool": tool["name"], "input": value} for value in inputs)
            if len(calls) > limit:
                raise SchemaError(
                    f"there are more than {limit} calls, up to and including those of "
                    f"tool {tool['name']!r}"
                )
        return calls

    def to_jsonable(self, sample_n: Iterable[ToolCall]) -> list[ToolCall]:
        """Return the calls, which are JSON already, as a list of their own."""
        return deepcopy(list(sample_n))

    def from_jsonable(self, sample_n: list[Any]) -> list[ToolCall]:
        """Return the calls that ``to_jsonable`` was given."""
        return deepcopy(sample_n)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Nobody changes the tools, which may be nested too deeply to be copied.
        copied = copy(self)
        vars(copied)["_np_random"] = deepcopy(self._np_random, memo)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        # Pickle, too, cannot follow what is nested deeply.
        return {**vars(self), "_tools": flatten_json(self._tools)}

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state, _tools=tuple(unflatten_json(state["_tools"])))

    def __eq__(self, other: object, /) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, ToolCallSpace)
            and self._identity is not None
            and other._identity == self._identity
        )

    __hash__ = None  # type: ignore[assignment]  # the tools change

    def __repr__(self) -> str:
        return f"ToolCallSpace({', '.join(tool['name'] for tool in self._tools)})"


class ToolCallText(FreeText):
    """Text whose ``sample()`` is a valid tool call as JSON; any text is a member.

    The action space of ``action_mode="text"``: any text of a language model is an
    action, and a random agent still makes valid calls.

    Args:
        calls: The space of the calls. It is shared, not copied, with its seed, its
            state and its tools.
        max_length: Longest text, in characters.

    Example:
        >>> tool = {"name": "look", "description": "", "input_schema": None}
        >>> space = ToolCallText(ToolCallSpace([tool]))
        >>> space.sample()
        '{"tool": "look", "input": {}}'
        >>> "I would rather talk." in space
        True
    """

    def __init__(
        self, calls: ToolCallSpace, max_length: int = DEFAULT_MAX_LENGTH
    ) -> None:
        super().__init__(max_length)
        self.calls = calls

    @property
    def np_random(self) -> np.random.Generator:
        """The generator of the calls' space."""
        return self.calls.np_random

    def seed(self, seed: int | None = None) -> int:
        """Seed the calls' space.

        Args:
            seed: The seed, or None for a random one.

        Returns:
            The seed that was used.
        """
        return int(self.calls.seed(seed))

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Draw a valid call and write it as JSON.

        Args:
            mask: As in `ToolCallSpace.sample`.
            probability: As in `ToolCallSpace.sample`.

        Returns:
            The call as one line of JSON.

        Raises:
            SchemaError: As in `ToolCallSpace.sample`.
        """
        return json.dumps(self.calls.sample(mask, probability), ensure_ascii=False)

    def __eq__(self, other: object, /) -> bool:
        return (
            isinstance(other, ToolCallText)
            and other.max_length == self.max_length
            and other.calls == self.calls
        )

    __hash__ = None  # like every Gymnasium space


def _input_schema(tool: ToolSpec) -> Any:
    schema = tool.get("input_schema")
    return _NO_ARGUMENTS if schema is None else schema


def _identity(tools: tuple[ToolSpec, ...]) -> str | None:
    """Return what makes two lists of tools the same space: names and schemas.

    None if the schemas are not JSON.
    """
    pairs = [(tool["name"], tool.get("input_schema")) for tool in tools]
    try:
        # JSON tells 1 from true, which Python's equality does not.
        return json.dumps(flatten_json(pairs, sort_keys=True))
    except (TypeError, ValueError):
        return None


@create_empty_array.register(ToolCallSpace)
def _create_empty_calls(
    space: ToolCallSpace,  # noqa: ARG001
    n: int = 1,
    fn: Any = np.zeros,  # noqa: ARG001  # Gymnasium's signature
) -> tuple[ToolCall, ...]:
    return tuple({"tool": "", "input": {}} for _ in range(n))


batch_differing_spaces.register(ToolCallSpace, batch_differing_spaces.dispatch(Text))
