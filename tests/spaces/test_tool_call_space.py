"""`ToolCallSpace` and `ToolCallText` as Gymnasium spaces."""

import copy
import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ors_gym.errors import SchemaError
from ors_gym.spaces import FreeText, ToolCallSpace, ToolCallText, _tool_call
from tests.spaces.pydantic_tools import MODELS
from tests.spaces.texts import EchoEnv
from tests.support.slow_cases import mostly_slow


def tool(name: str, schema: Any = None) -> dict[str, Any]:
    return {"name": name, "description": f"It is {name}.", "input_schema": schema}


STRING = {"type": "string"}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LOOK, GUESS, WRITE = tool("look"), tool("guess", NUMBER), tool("write", NUMBER)
MODEL_TOOLS = [tool(name, one.model_json_schema()) for name, one in MODELS.items()]
NO_INPUTS: list[Any] = [None, [], {"x": 1}]
REMOTE = tool("remote", {"$ref": "https://example.com/schema.json"})


def counted(space: ToolCallSpace, **arguments: Any) -> Counter[str]:
    return Counter(space.sample(**arguments)["tool"] for _ in range(600))


def test_tools_are_drawn_alike() -> None:
    counts = counted(ToolCallSpace([LOOK, GUESS, WRITE], seed=1))
    assert set(counts) == {"look", "guess", "write"}
    assert min(counts.values()) > 130


def test_the_same_seed_gives_the_same_calls() -> None:
    one, two = (ToolCallSpace([LOOK, GUESS], seed=4) for _ in range(2))
    calls = [one.sample() for _ in range(50)]
    assert calls == [two.sample() for _ in range(50)]
    assert one.seed(4) == 4
    assert calls == [one.sample() for _ in range(50)]
    assert calls != [one.sample() for _ in range(50)]
    generator = np.random.default_rng(1)
    assert ToolCallSpace([LOOK], seed=generator).np_random is generator


@pytest.mark.parametrize(
    "call",
    [
        *(None, "look", [], {}, {"tool": "look"}, {"input": {}}),
        {"tool": "look", "input": {}, "more": 1},
        *({"name": "look", "input": {}}, {"tool": "other", "input": {}}),
        {"tool": ["look"], "input": {}},
        *({"tool": "look", "input": wrong} for wrong in NO_INPUTS),
    ],
)
def test_what_is_no_call(call: object) -> None:
    assert call not in ToolCallSpace([LOOK])


def test_a_schema_without_a_type_still_takes_objects_only() -> None:
    space = ToolCallSpace([tool("any", {})])
    assert {"tool": "any", "input": {"x": [1]}} in space
    assert {"tool": "any", "input": 5} not in space


def test_two_tools_of_one_name_are_alternatives() -> None:
    space = ToolCallSpace([tool("t", {"required": [name]}) for name in "ab"])
    assert {"tool": "t", "input": {"a": 1}} in space
    assert {"tool": "t", "input": {"b": 1}} in space
    assert {"tool": "t", "input": {"c": 1}} not in space


def test_calls_of_all_tools() -> None:
    schema = {"properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    space = ToolCallSpace([tool("guess", schema), LOOK])
    calls = space.enumerate()
    guesses = [{"tool": "guess", "input": {"n": n}} for n in (1, 2)]
    assert calls == [*guesses, {"tool": "look", "input": {}}]
    assert all(call in space for call in calls)
    assert space.enumerate(3) == calls
    with pytest.raises(SchemaError, match="more than 2 calls"):
        space.enumerate(2)
    with pytest.raises(SchemaError, match=r"tool 'write': input: at #/properties/text"):
        ToolCallSpace([tool("write", {"properties": {"text": STRING}})]).enumerate()


def test_a_listed_call_is_the_callers_own() -> None:
    space = ToolCallSpace([tool("t", {"const": {"a": [1]}})])
    space.enumerate()[0]["input"]["a"].append(2)
    assert space.enumerate()[0]["input"] == {"a": [1]}


@pytest.mark.parametrize(
    "mask",
    [
        {"guess": 0, "write": False},
        {"look": 1, "guess": 0, "write": 0},
        [1, 0, 0],
        (True, False, False),
        np.array([1, 0, 0], dtype=np.int8),
        np.array([True, False, False]),
    ],
)
def test_a_mask_forbids_tools(mask: Any) -> None:
    assert set(counted(ToolCallSpace([LOOK, GUESS, WRITE]), mask=mask)) == {"look"}


@pytest.mark.parametrize(
    "probability", [{"guess": 0.9, "write": 0.1}, np.array([0, 0.9, 0.1])]
)
def test_probabilities_weigh_tools(probability: Any) -> None:
    space = ToolCallSpace([LOOK, GUESS, WRITE], seed=1)
    counts = counted(space, probability=probability)
    assert set(counts) == {"guess", "write"}
    assert counts["guess"] > 5 * counts["write"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": {"submit": 0}}, "unknown tools"),
        ({"mask": [1]}, "1 values for 2 tools"),
        ({"mask": [1, -1]}, "outside"),
        ({"mask": [1, float("nan")]}, "outside"),
        ({"mask": [1, None]}, "value that cannot be"),
        ({"mask": {"look": "yes"}}, "value that cannot be"),
        ({"mask": [1, 10**400]}, "value that cannot be"),
        ({"probability": [0.5, 0.4]}, "add up"),
        ({"probability": {"look": 2, "guess": -1}}, "outside"),
        ({"mask": [1, 1], "probability": [0.5, 0.5]}, "not both"),
    ],
)
def test_masks_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToolCallSpace([LOOK, GUESS]).sample(**arguments)


def test_no_tool_to_draw() -> None:
    with pytest.raises(SchemaError, match="the mask forbids all 2"):
        ToolCallSpace([LOOK, GUESS]).sample(mask=[0, 0])
    empty = ToolCallSpace([])
    with pytest.raises(SchemaError, match="the server lists none"):
        empty.sample()
    assert {"tool": "look", "input": {}} not in empty
    assert empty.enumerate() == []


def test_an_unusable_schema_is_an_error_of_the_first_draw() -> None:
    space = ToolCallSpace([LOOK, REMOTE], seed=1)
    for _ in range(5):
        with pytest.raises(SchemaError, match=r"^tool 'remote': input: at #/\$ref: "):
            space.sample()
    assert space.sample(mask={"remote": 0}) == {"tool": "look", "input": {}}


def test_a_tool_without_a_name_is_refused() -> None:
    space = ToolCallSpace([LOOK])
    unnamed: list[Any] = [{}, {"name": 5}, "look", None]
    for wrong in unnamed:
        with pytest.raises(SchemaError, match="tool 1 of the list has no name"):
            ToolCallSpace([LOOK, wrong])
        with pytest.raises(SchemaError):
            space.update([LOOK, wrong])
    assert space.tools == (LOOK,)


def test_a_space_follows_the_tools_and_keeps_its_seed() -> None:
    space, other = ToolCallSpace([LOOK], seed=3), ToolCallSpace([GUESS], seed=3)
    batched = copy.deepcopy(space)
    space.update([GUESS])
    assert space.tools == (GUESS,)
    assert space == other != batched
    assert [space.sample() for _ in range(9)] == [other.sample() for _ in range(9)]
    assert batched.sample() == {"tool": "look", "input": {}}


def test_an_update_without_a_change_keeps_what_was_compiled() -> None:
    space = ToolCallSpace([GUESS])
    compiled = space._schemas
    space.update(copy.deepcopy([GUESS]))
    assert space._schemas is compiled


def test_an_update_that_was_interrupted_can_be_repeated(monkeypatch) -> None:
    space = ToolCallSpace([LOOK])

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_tool_call, "CompiledSchema", interrupt)
        with pytest.raises(KeyboardInterrupt):
            space.update([GUESS, LOOK])
    assert space.sample() == {"tool": "look", "input": {}}
    space.update([GUESS, LOOK])
    assert space.sample(mask={"look": 0}) in space


def test_equality_is_of_names_and_schemas() -> None:
    space = ToolCallSpace([LOOK, GUESS])
    assert space == ToolCallSpace([{**LOOK, "description": "Other."}, GUESS], seed=1)
    assert space != ToolCallSpace([GUESS, LOOK])
    assert space != ToolCallSpace([LOOK])
    assert space != "space"
    one, true = ({"const": value} for value in (1, True))
    assert ToolCallSpace([tool("t", one)]) != ToolCallSpace([tool("t", true)])
    with pytest.raises(TypeError):
        hash(space)
    assert repr(space) == "ToolCallSpace(look, guess)"


def test_schemas_that_are_not_json_are_only_equal_to_themselves() -> None:
    spaces = [ToolCallSpace([tool("t", {"const": {1, 2}})]) for _ in range(2)]
    assert spaces[0] == spaces[0]
    assert spaces[0] != spaces[1]


def test_a_pickle_keeps_the_state() -> None:
    space = ToolCallSpace([LOOK, GUESS], seed=1)
    space.sample()
    restored = pickle.loads(pickle.dumps(space))
    copied = copy.deepcopy(space)
    assert space == restored == copied
    expected = [space.sample() for _ in range(20)]
    assert [restored.sample() for _ in range(20)] == expected
    assert [copied.sample() for _ in range(20)] == expected


def test_json_round_trip() -> None:
    space = ToolCallSpace(MODEL_TOOLS, seed=1)
    calls = [space.sample() for _ in range(200)]
    wire = json.loads(json.dumps(space.to_jsonable(calls)))
    assert space.from_jsonable(wire) == calls
    # A value that arrives as JSON is judged as the value that was sent.
    assert all(call in space for call in wire)


def test_it_is_not_flattened() -> None:
    space = ToolCallSpace([LOOK])
    assert not space.is_np_flattenable
    assert space.shape is None
    assert space.dtype is None


def test_text_is_a_view_of_the_calls() -> None:
    calls = ToolCallSpace([LOOK, GUESS], seed=1)
    space = ToolCallText(calls)
    same = ToolCallText(ToolCallSpace([LOOK, GUESS], seed=1))
    texts = [space.sample() for _ in range(20)]
    assert texts == [same.sample() for _ in range(20)]
    assert all(json.loads(text) in calls for text in texts)
    assert space.seed(1) == 1
    again = [space.sample() for _ in range(20)]
    assert list(map(json.loads, texts)) == list(map(json.loads, again))
    assert json.loads(space.sample(mask={"guess": 0}))["tool"] == "look"
    calls.update([WRITE])
    assert json.loads(space.sample())["tool"] == "write"
    assert "anything at all" in space
    assert 5 not in space


def test_text_is_equal_by_its_calls() -> None:
    space = ToolCallText(ToolCallSpace([LOOK]), max_length=9)
    assert space == ToolCallText(ToolCallSpace([LOOK], seed=2), max_length=9)
    assert space != ToolCallText(ToolCallSpace([LOOK]))
    assert space != ToolCallText(ToolCallSpace([GUESS]), max_length=9)
    assert space != FreeText(max_length=9)
    assert FreeText(max_length=9) != space
    restored = pickle.loads(pickle.dumps(space))
    assert restored == space
    assert restored.calls.sample() == {"tool": "look", "input": {}}


def test_text_is_written_in_any_script() -> None:
    space = ToolCallText(ToolCallSpace([tool("say", {"const": {"text": "世界"}})]))
    assert space.sample() == '{"tool": "say", "input": {"text": "世界"}}'


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("as_text", [False, True])
def test_check_env_is_satisfied(as_text: bool) -> None:
    calls = ToolCallSpace([LOOK, GUESS])
    actions = ToolCallText(calls) if as_text else calls
    check_env(EchoEnv(actions=actions), skip_render_check=True)


def test_jsonschema_is_imported_when_it_is_needed() -> None:
    program = """
import sys
from ors_gym.spaces import _tool_call
from ors_gym.spaces import ToolCallSpace
schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
space = ToolCallSpace([{"name": "t", "description": "", "input_schema": schema}])
call = space.sample()
print("jsonschema" in sys.modules)
assert call in space
print("jsonschema" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]


MUTANTS = 20_000
PARTS = 4
ODDITIES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.0, 1e308, 10**30, -(10**400)),
    *(float("nan"), float("inf"), "", "x", "\ud800", "a" * 300),
    *([], [1, 1], {}, {"kind": "cat"}, (1, "x")),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


def mutate(value: Any, random: Random) -> Any:
    value = copy.deepcopy(value)
    *way, last = random.choice([path for path in places(value) if path] or [("new",)])
    parent = value
    for key in way:
        parent = parent[key]
    kind = random.randrange(6)
    keys = parent if isinstance(parent, dict) else range(len(parent))
    if kind == 0 and last in keys:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent["extra"] = random.choice(ODDITIES)
    elif kind == 2 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
    elif kind == 3 and isinstance(parent, dict) and isinstance(parent.get(last), int):
        parent[last] = parent[last] * random.choice((-1, 1000, 10**20)) + 1
    else:
        parent[last] = random.choice(ODDITIES)
    return value


def expected(validator: Any, value: Any) -> bool:
    try:
        return bool(validator.is_valid(value))
    except (OverflowError, ValueError):
        # jsonschema itself fails to divide NaN and huge integers: no member.
        return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", mostly_slow(range(PARTS)))
def test_contains_agrees_with_jsonschema_on_mutants(seed: int) -> None:
    random = Random(seed)
    space = ToolCallSpace(MODEL_TOOLS, seed=seed)
    validators = {
        one["name"]: jsonschema.Draft202012Validator(one["input_schema"])
        for one in MODEL_TOOLS
    }
    members = 0
    for number in range(MUTANTS // PARTS):
        call = space.sample()
        value = mutate(call["input"], random)
        if number % 3 == 0:
            value = mutate(value, random)
        verdict = expected(validators[call["tool"]], value)
        assert ({"tool": call["tool"], "input": value} in space) == verdict, value
        members += verdict
    # Mutants on one side only would prove nothing.
    assert 0.1 < members / (MUTANTS // PARTS) < 0.9


def test_deep_schemas_are_compared_copied_and_pickled() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(2000):
        schema = {"type": "object", "properties": {"x": schema}}
    space = ToolCallSpace([tool("deep", schema)], seed=1)
    for other in (
        ToolCallSpace([tool("deep", schema)]),
        copy.copy(space),
        copy.deepcopy(space),
        pickle.loads(pickle.dumps(space)),
    ):
        assert other == space
        assert other.sample() in space
    changed = ToolCallSpace([tool("deep", {**schema, "maxProperties": 0})])
    assert changed != space


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"anyOf": [{"type": "string"}, NUMBER]},
        {"type": ["object", "null"], "properties": NUMBER["properties"]},
        {"minLength": 3},
        {"enum": ["x", {"n": 1}]},
    ],
)
def test_inputs_are_objects_whatever_the_schema(schema: Any) -> None:
    space = ToolCallSpace([tool("any", schema)], seed=1)
    assert all(space.sample() in space for _ in range(50))


def test_a_schema_without_objects_is_an_error() -> None:
    for schema in ({"type": "string"}, {"enum": [1, 2]}):
        with pytest.raises(SchemaError, match="tool 'none': input"):
            ToolCallSpace([tool("none", schema)]).sample()
