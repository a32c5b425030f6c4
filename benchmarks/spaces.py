"""What sampling, checking and listing actions costs, against the budgets.

    python -m benchmarks.spaces

Each round measures everything once, in turn, so that a busy machine slows all alike;
the medians of the rounds are shown. Times are CPU times of this process, but for the
imports, which are those of a new process.
"""

from __future__ import annotations

import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rows import Row
from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces._text import SharedText

ROUNDS = 15
SAMPLES = 300

_STRING = {"type": "string"}
_ITEM = {
    "type": "object",
    "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "note": {"anyOf": [_STRING, {"type": "null"}], "default": None},
    },
    "required": ["sku", "quantity", "price"],
}
TYPICAL: dict[str, dict[str, Any]] = {
    "bash": {
        "type": "object",
        "properties": {
            "command": _STRING,
            "timeout": {"type": "integer", "default": 60},
        },
        "required": ["command"],
    },
    "search": {
        "type": "object",
        "properties": {
            "query": {"type": "string", "minLength": 1, "maxLength": 200},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": 10},
            "sort": {"enum": ["relevance", "date", "size"], "default": "relevance"},
            "since": {
                "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]
            },
            "tags": {"type": "array", "items": _STRING, "maxItems": 5},
        },
        "required": ["query"],
    },
    "order": {
        "$defs": {
            "Item": _ITEM,
            "Card": {
                "type": "object",
                "properties": {
                    "kind": {"const": "card", "default": "card"},
                    "number": {"type": "string", "pattern": "^[0-9]{16}$"},
                },
                "required": ["number"],
            },
            "Cash": {
                "type": "object",
                "properties": {"kind": {"const": "cash", "default": "cash"}},
            },
        },
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "email": {"type": "string", "format": "email"},
            "items": {
                "type": "array",
                "items": {"$ref": "#/$defs/Item"},
                "minItems": 1,
            },
            "payment": {
                "discriminator": {"propertyName": "kind"},
                "oneOf": [{"$ref": "#/$defs/Card"}, {"$ref": "#/$defs/Cash"}],
            },
            "attributes": {"type": "object", "additionalProperties": _STRING},
        },
        "required": ["id", "email", "items", "payment"],
    },
    "tree": {
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["value"],
            }
        },
        "$ref": "#/$defs/Node",
    },
}
_THOUSAND = {
    "type": "object",
    "properties": {
        "row": {"type": "integer", "minimum": 0, "maximum": 9},
        "column": {"type": "integer", "minimum": 0, "maximum": 9},
        "piece": {"enum": list("abcdefghij")},
    },
    "required": ["row", "column", "piece"],
}


def _space(name: str, schema: dict[str, Any]) -> ToolCallSpace:
    tool = {"name": name, "description": "", "input_schema": schema}
    return ToolCallSpace([tool], seed=1)


def _cpu(action: Callable[[], object], times: int = 1) -> float:
    start = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - start) / times


def _import_time(statement: str, cache: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # With byte code written, as it is where a package was installed.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _through_pickle(text: str) -> None:
    pickle.loads(pickle.dumps(text))


def _share(shared: SharedText, text: str) -> None:
    shared.write(0, text)
    shared.read(0)


def _measurements(cache: str) -> dict[str, Callable[[], float]]:
    actions: dict[str, Callable[[], float]] = {}
    for name, schema in TYPICAL.items():
        space = _space(name, schema)
        call = space.sample()
        _ = call in space

        def compile_it(name: str = name, schema: dict[str, Any] = schema) -> float:
            return _cpu(lambda: _space(name, schema).sample())

        def sample(space: ToolCallSpace = space) -> float:
            return _cpu(space.sample, SAMPLES)

        def contain(space: ToolCallSpace = space, call: Any = call) -> float:
            return _cpu(lambda: call in space, SAMPLES)

        actions |= {
            f"first sample of {name}": compile_it,
            f"sample of {name}": sample,
            f"contains of {name}": contain,
        }
    actions["list 1000"] = lambda: _cpu(_space("t", _THOUSAND).enumerate)
    shared = SharedText(1, 2**24)
    for size, text in (("1 KB", "x" * 1000), ("5 MB", "é" * 2_500_000)):

        def share(text: str = text) -> float:
            return _cpu(lambda: _share(shared, text), 10)

        def piped(text: str = text) -> float:
            return _cpu(lambda: _through_pickle(text), 10)

        actions |= {f"shared {size}": share, f"pickled {size}": piped}
    plain = "import gymnasium, httpx"
    with_spaces = f"{plain}; import ors_gym.spaces._tool_call"
    for statement in (plain, with_spaces):
        _import_time(statement, cache)
    actions["import"] = lambda: _import_time(plain, cache)
    actions["import spaces"] = lambda: _import_time(with_spaces, cache)
    return actions


def measure(rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Measure what the design promises of actions.

    Args:
        rounds: How often everything is measured.

    Returns:
        The promises, and the median seconds of all that was measured.
    """
    with tempfile.TemporaryDirectory() as cache:
        actions = _measurements(cache)
        times: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(rounds):
            for name, action in actions.items():
                times[name].append(action())
    median = {name: statistics.median(values) for name, values in times.items()}
    worst = max(median[f"sample of {name}"] for name in TYPICAL)
    added = median["import spaces"] - median["import"]
    return [
        Row("a valid sampled action, the dearest schema", worst * 1e6, 100, unit="us"),
        Row("listing 1000 actions", median["list 1000"] * 1e3, 50, unit="ms"),
        Row("import with the spaces at first use", added * 1e3, 60, unit="ms"),
    ], median


def main() -> None:
    """Print the tables."""
    rows, median = measure(ROUNDS)
    print(f"{'tool':10}{'first':>10}{'sample':>10}{'contains':>10}   (us of CPU)")
    for name in TYPICAL:
        kinds = (f"{kind} of {name}" for kind in ("first sample", "sample", "contains"))
        print(f"{name:10}" + "".join(f"{median[kind] * 1e6:10.0f}" for kind in kinds))
    for size in ("1 KB", "5 MB"):
        shared, pickled = median[f"shared {size}"], median[f"pickled {size}"]
        ratio = shared / pickled
        print(f"text of {size}: {shared * 1e6:.0f} us shared, {ratio:.1f}x pickled")
    for row in rows:
        print(f"{row.what}: {row.figure}, budget {row.budget}")


if __name__ == "__main__":
    main()
