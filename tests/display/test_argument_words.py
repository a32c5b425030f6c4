"""A card, a form and the command line describe an argument in the same words."""

import html
from typing import Any

import pytest

from ors_gym.display._cards import tools_card
from ors_gym.display._game import list_fields
from ors_gym.display._play_in_notebook import Form
from ors_gym.formats._schemas import describe_tool

pytestmark = pytest.mark.unit

widgets = pytest.importorskip("ipywidgets")

DEFINITIONS = {
    "Way": {"enum": ["up", "down"], "type": "string"},
    "Age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
    "a/b": {"const": 5},
    "Loop": {"$ref": "#/$defs/Loop"},
}
WAY = {"$ref": "#/$defs/Way"}
AGE = {"$ref": "#/$defs/Age"}
NULL = {"type": "null"}
DIGIT = {"type": "integer", "minimum": 1, "maximum": 9}
# For each kind of form field: schemas, and the words for them.
KINDS: dict[str, list[tuple[Any, str]]] = {
    "choice": [
        (WAY, 'one of "up", "down"'),
        ({**WAY, "default": "up"}, 'one of "up", "down", default "up"'),
        ({"allOf": [WAY]}, 'one of "up", "down"'),
        ({"anyOf": [WAY, NULL]}, 'one of "up", "down" or null'),
        ({"$ref": "#/$defs/a~1b"}, "5"),
    ],
    "integer": [
        (
            {"anyOf": [AGE, NULL], "default": None},
            "integer, at least 0, less than 150 or null, default null",
        ),
        (DIGIT, "integer, at least 1, at most 9"),
        # Draft 4 says whether the bound itself is left out; later drafts another bound.
        ({**DIGIT, "exclusiveMinimum": True}, "integer, more than 1, at most 9"),
        ({**DIGIT, "exclusiveMaximum": True}, "integer, at least 1, less than 9"),
        ({**DIGIT, "exclusiveMinimum": False}, "integer, at least 1, at most 9"),
    ],
    "number": [
        (
            {"type": "number", "exclusiveMinimum": 0, "default": False},
            "number, more than 0, default false",
        ),
        ({"type": "number", "multipleOf": 0.5}, "number, a multiple of 0.5"),
    ],
    "string": [({"type": "string", "maxLength": 5}, "string, at most 5 characters")],
    "json": [
        ({"anyOf": [{"type": "integer"}, WAY]}, 'integer or one of "up", "down"'),
        ({"type": "array", "items": WAY}, 'array of one of "up", "down"'),
        ({"type": "array"}, "array"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"exclusiveMinimum": True}, "JSON"),
        ({}, "JSON"),
        (True, "anything"),
        (False, "nothing"),
        ({"$ref": "#/$defs/Loop"}, "JSON"),
        ({"$ref": "#/$defs/None"}, "JSON"),
    ],
}


@pytest.mark.parametrize(
    ("schema", "words", "kind"),
    [(*row, kind) for kind, rows in KINDS.items() for row in rows],
)
def test_every_view_says_the_same(schema, words, kind):
    whole = {"$defs": DEFINITIONS, "properties": {"a": schema}, "required": ["a"]}
    tool: Any = {"name": "go", "description": "", "input_schema": whole}
    assert describe_tool(tool) == f"go(a: {words})"
    escaped = html.escape(words)
    assert f">{escaped}</span>" in tools_card([tool])
    label = Form(widgets, tool).box.children[0].children[0]
    assert f"<small>{escaped}</small>" in label.value
    (field,) = list_fields(tool) or []
    assert field.kind == kind
