"""Give schemas that no author should write to the space, the cards and the formats.

Each input is a schema of a real kind, mutated, or drawn keyword by keyword, of one of
several drafts. It is refused with an error of ours, or every sample of it is valid in
the space and in the eyes of jsonschema's validator of that draft, as it is and with its
references bundled. Nothing takes longer than some seconds.
"""

import contextlib
import json
import signal
from collections.abc import Iterator
from random import Random
from types import FrameType
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from referencing import Registry

from ors_gym.display._cards import tools_card
from ors_gym.display._game import list_fields
from ors_gym.errors import ORSError
from ors_gym.formats import to_openai_tools
from ors_gym.formats._schemas import bundle_schema, describe_tool
from ors_gym.spaces import ToolCallSpace
from ors_gym.types import ToolSpec
from tests.system.fuzz.replies import misshape
from tests.system.fuzz.tally import FuzzError, Tally

_SECONDS: Final = 30
"""Far longer than anything takes, also on a busy machine."""
_SEEDS: Final[list[Any]] = [
    {"properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}},
    {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
    {"properties": {"way": {"enum": ["up", "down"]}}, "required": ["way"]},
    {
        "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}},
        "properties": {"head": {"$ref": "#/$defs/Node"}},
    },
    {"properties": {"s": {"type": "string", "pattern": "^[a-f]{2,4}$"}}},
    {"properties": {"s": {"type": "string", "format": "date", "maxLength": 12}}},
    {"properties": {"xs": {"type": "array", "items": {"type": "number"}}}},
    {"properties": {"xs": {"prefixItems": [{"const": 1}], "uniqueItems": True}}},
    {"additionalProperties": {"type": "integer"}, "minProperties": 2},
    {
        "patternProperties": {"^x": {"multipleOf": 0.5}},
        "propertyNames": {"pattern": "x"},
    },
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {
        "allOf": [
            {"properties": {"a": {"minimum": 3}}},
            {"properties": {"a": {"maximum": 4}}},
        ]
    },
    {
        "if": {"required": ["a"]},
        "then": {"required": ["b"]},
        "not": {"required": ["c"]},
    },
    {"anyOf": [{"$ref": "#"}, {}]},
    {"$defs": {"x": {"anyOf": [{"$ref": "#"}, {"not": {}}]}}, "$ref": "#/$defs/x"},
    {
        "$id": "http://x/y/",
        "$defs": {"x": {"$id": "z", "$anchor": "a", "type": "integer"}},
        "properties": {"a": {"$ref": "z#a"}, "b": {"$ref": "z"}},
        "required": ["a", "b"],
    },
    {"$dynamicAnchor": "a", "properties": {"x": {"$dynamicRef": "#a"}}},
    {"$recursiveAnchor": True, "properties": {"x": {"$recursiveRef": "#"}}},
    {
        "definitions": {"x": {"id": "#a", "$id": "#a", "enum": [1, "b"]}},
        "properties": {"a": {"$ref": "#a"}},
        "dependencies": {"a": ["b"], "b": {"minProperties": 3}},
    },
    {"properties": {"a": {"items": [{"const": 1}], "additionalItems": False}}},
    {"properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}, "required": ["a"]},
]
_DRAFTS: Final = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
_ODD: Final[list[Any]] = [
    *(None, True, False, 0, -1, 1.5, 1e308, "", "a", "^(a+)+$", "(", "#", "#/$defs/x"),
    *([], {}, [[]], {"": None}, {"type": "object"}, {"$ref": "#"}, {"not": {}}),
    *(["string", "null"], {"enum": []}, {"const": None}, {"type": "nothing"}, 10**30),
    *({"anyOf": [{"type": "integer"}] * 3}, {"contains": {"const": 1}}, "2020-01-01"),
]
_TYPES: Final = ("string", "integer", "number", "boolean", "null", "array", "object")
_REFERENCES: Final = ("#", "#/$defs/x", "#/definitions/x", "#/properties/a", "#a", "z")
_BLIND: Final = '"patternProperties": {"": '
"""What jsonschema misreads: it takes a single empty pattern for none."""
_WORDS: Final = ("a", "b", "x", "^a", "[ab]{1,3}", "", "$ref")


def play(random: Random, tally: Tally) -> None:
    """Try one schema."""
    schema = mutate(random)
    tool = ToolSpec(name="f", description="", input_schema=schema)
    try:
        with _bounded(schema):
            tally.outcomes[f"schema: {_try(tool, random)}"] += 1
            tools_card([tool])
            describe_tool(tool)
            list_fields(tool)
            to_openai_tools([tool])
    except FuzzError:
        raise
    except Exception as error:
        said = f"schema: {type(error).__name__}: {error}"
        raise FuzzError(f"{said}\n{json.dumps(schema)}") from error


def mutate(random: Random) -> Any:
    schema = _draw(random, 3) if random.random() < 0.5 else random.choice(_SEEDS)
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        schema = misshape(schema, random, _ODD)
    # What a server sends is an object.
    schema = schema if isinstance(schema, dict) else {"properties": {"a": schema}}
    if random.random() < 0.6:
        return {**schema, "$schema": random.choice(_DRAFTS)}
    return schema


def _draw(random: Random, depth: int) -> Any:
    """Draw a schema, keyword by keyword."""

    def inner() -> Any:
        return _draw(random, depth - 1) if depth else random.choice(_ODD)

    def several() -> list[Any]:
        return [inner() for _ in range(random.randrange(4))]

    def named() -> dict[str, Any]:
        return {random.choice(_WORDS): inner() for _ in range(random.randrange(4))}

    def small() -> int:
        return random.randrange(-2, 9)

    def word() -> str:
        return random.choice(_WORDS)

    makers: dict[str, Any] = {
        "type": lambda: random.choice((*_TYPES, ["string", "null"])),
        "enum": lambda: random.sample(_ODD, random.randrange(1, 4)),
        "const": lambda: random.choice(_ODD),
        "required": lambda: [word() for _ in range(random.randrange(3))],
        "pattern": word,
        "uniqueItems": lambda: True,
        **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), named),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), several),
        **dict.fromkeys(("items", "not", "contains", "additionalProperties"), inner),
        **dict.fromkeys(("propertyNames", "if", "then", "else"), inner),
        **dict.fromkeys(("minimum", "maximum", "multipleOf", "minLength"), small),
        **dict.fromkeys(("maxLength", "minItems", "maxItems", "minProperties"), small),
        **dict.fromkeys(("exclusiveMinimum", "additionalItems"), inner),
        **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties"), inner),
        **dict.fromkeys(("$defs", "definitions", "dependencies"), named),
        **dict.fromkeys(("$ref", "$dynamicRef"), lambda: random.choice(_REFERENCES)),
        **dict.fromkeys(("$id", "$anchor"), word),
    }
    names = random.sample(sorted(makers), random.randrange(4))
    return {name: makers[name]() for name in names}


def _try(tool: ToolSpec, random: Random) -> str:
    schema = tool["input_schema"] or {}
    validator = validator_for(schema, default=Draft202012Validator)
    well_formed = validator(validator.META_SCHEMA).is_valid(schema)
    kind = "well formed" if well_formed else "malformed"
    try:
        space = ToolCallSpace([tool], seed=random.randrange(1000))
        calls = [space.sample() for _ in range(3)]
        with contextlib.suppress(ORSError):
            calls += space.enumerate(100)
    except ORSError as error:
        return f"{kind}: {error.kind}"
    try:
        strangers = [call for call in calls if not space.contains(call)]
    except ORSError as error:
        if well_formed:
            raise
        # It can be sampled, though jsonschema cannot check it.
        return f"{kind}: {error.kind} by the check"
    # What a schema means that is none is anybody's guess.
    if not well_formed or (not strangers and _BLIND in json.dumps(schema)):
        return f"{kind}: sampled"
    try:
        for form in (schema, bundle_schema(schema)):
            judge = validator(form, registry=Registry())
            strangers += [call for call in calls if not judge.is_valid(call["input"])]
    except BaseException as error:
        # Circles, and branches that it looks at in vain before the one that counts. Its
        # tables, written in Rust, make a PanicException of a RecursionError.
        if not isinstance(error, Exception) and "Panic" not in type(error).__name__:
            raise
        kind = "beyond jsonschema"
    if strangers:
        raise FuzzError(f"schema: {strangers[0]} is not valid\n{json.dumps(tool)}")
    return f"{kind}: sampled"


@contextlib.contextmanager
def _bounded(schema: Any) -> Iterator[None]:
    """Fail where something hangs: in time of the processor, since others use it too."""

    def fail(signum: int, frame: FrameType | None) -> None:
        raise FuzzError(f"schema: over {_SECONDS} s\n{json.dumps(schema)}")

    earlier = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)
