"""A card, a form and the command line describe an argument in the same words."""

from __future__ import annotations

import html
from typing import Any

import pytest

from ors_gym.cli._list import _signature
from ors_gym.display._cards import tools_card
from ors_gym.display._game import list_fields
from ors_gym.display._play_in_notebook import Form

widgets = pytest.importorskip("ipywidgets")

DEFINITIONS = {
    "Way": {"enum": ["up", "down"], "type": "string"},
    "Age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
    "a/b": {"const": 5},
    "Loop": {"$ref": "#/$defs/Loop"},
}
WAY = {"$ref": "#/$defs/Way"}
ONE_TO_NINE = {"type": "integer", "minimum": 1, "maximum": 9}


@pytest.mark.parametrize(
    ("schema", "words", "kind"),
    [
        (WAY, 'one of "up", "down"', "choice"),
        ({**WAY, "default": "up"}, 'one of "up", "down", default "up"', "choice"),
        ({"allOf": [WAY]}, 'one of "up", "down"', "choice"),
        ({"anyOf": [WAY, {"type": "null"}]}, 'one of "up", "down" or null', "choice"),
        (
            {"anyOf": [{"$ref": "#/$defs/Age"}, {"type": "null"}], "default": None},
            "integer, at least 0, less than 150 or null, default null",
            "integer",
        ),
        (
            {"anyOf": [{"type": "integer"}, WAY]},
            'integer or one of "up", "down"',
            "json",
        ),
        ({"$ref": "#/$defs/a~1b"}, "5", "choice"),
        ({"type": "array", "items": WAY}, 'array of one of "up", "down"', "json"),
        ({"type": "array"}, "array", "json"),
        ({"type": ["string", "null"]}, "string or null", "json"),
        (ONE_TO_NINE, "integer, at least 1, at most 9", "integer"),
        # Draft 4 says whether the bound itself is left out; later drafts another bound.
        (
            {**ONE_TO_NINE, "exclusiveMinimum": True},
            "integer, more than 1, at most 9",
            "integer",
        ),
        (
            {**ONE_TO_NINE, "exclusiveMaximum": True},
            "integer, at least 1, less than 9",
            "integer",
        ),
        (
            {**ONE_TO_NINE, "exclusiveMinimum": False},
            "integer, at least 1, at most 9",
            "integer",
        ),
        ({"exclusiveMinimum": True}, "JSON", "json"),
        (
            {"type": "number", "exclusiveMinimum": 0, "default": False},
            "number, more than 0, default false",
            "number",
        ),
        ({"type": "string", "maxLength": 5}, "string, at most 5 characters", "string"),
        ({"type": "number", "multipleOf": 0.5}, "number, a multiple of 0.5", "number"),
        ({}, "JSON", "json"),
        (True, "anything", "json"),
        (False, "nothing", "json"),
        ({"$ref": "#/$defs/Loop"}, "JSON", "json"),
        ({"$ref": "#/$defs/None"}, "JSON", "json"),
    ],
)
def test_every_view_says_the_same(schema, words, kind):
    whole = {"$defs": DEFINITIONS, "properties": {"a": schema}, "required": ["a"]}
    tool: Any = {"name": "go", "description": "", "input_schema": whole}
    assert _signature(tool) == f"go(a: {words})"
    escaped = html.escape(words)
    assert f">{escaped}</span>" in tools_card([tool])
    label = Form(widgets, tool).box.children[0].children[0]
    assert f"<small>{escaped}</small>" in label.value
    (field,) = list_fields(tool) or []
    assert field.kind == kind
