"""A form for the input of a tool, of ipywidgets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

from ors_gym.cards.listing import describe_schema
from ors_gym.cards.parts import escape
from ors_gym.playground.fields import Field, list_fields
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["Form"]

_LONG: Final = 80
"""Characters from which text gets several lines."""


class Form:
    """The form of one tool.

    Args:
        widgets: The module ``ipywidgets``.
        tool: The tool.

    Attributes:
        box: The form as a widget.
        editors: The widget of each argument, by name; ``""`` for the whole input
            where that has no known arguments.
        given: The checkbox of each argument that may be left out, by name.
    """

    def __init__(self, widgets: Any, tool: ToolSpec) -> None:
        self._widgets = widgets
        self.editors: dict[str, Any] = {}
        self.given: dict[str, Any] = {}
        fields = list_fields(tool)
        self._whole = fields is None
        self._fields = fields or []
        if fields is None:
            schema = tool["input_schema"] or {}
            self._fields = [Field("", schema, required=True, kind="json")]
        self._readers: dict[str, Callable[[], Any]] = {}
        rows = [self._row(field) for field in self._fields]
        self.box = widgets.VBox(rows)

    def read(self) -> JSONObject:
        """Return the input as it was written.

        Raises:
            ValueError: If something in it cannot be read; says what.
        """
        if self._whole:
            value = self._readers[""]()
            if not isinstance(value, dict):
                raise ValueError("the input has to be a JSON object: {...}")
            return value
        return {
            field.name: self._readers[field.name]()
            for field in self._fields
            if field.required or self.given[field.name].value
        }

    def _row(self, field: Field) -> Any:
        editor = self._edit(field)
        self.editors[field.name] = editor
        words = describe_schema(field.schema)
        about = field.schema.get("description") if field.name else ""
        said = f"{escape(words)}<br>{escape(about)}" if about else escape(words)
        label = self._widgets.HTML(
            f'<div style="line-height:1.35"><b>{escape(field.name or "input")}</b>'
            f"<br><small>{said}</small></div>"
        )
        label.layout.flex = "1 1 200px"
        editor.layout.width = "auto"
        editor.layout.flex = "2 1 200px"
        parts = [label, editor]
        if not field.required:
            parts.insert(1, self._may_be_left_out(field, editor))
        row = self._widgets.HBox(parts)
        row.layout.flex_flow = "row wrap"
        return row

    def _may_be_left_out(self, field: Field, editor: Any) -> Any:
        given = self._widgets.Checkbox(value=False, description="give", indent=False)
        given.layout.width = "70px"
        self.given[field.name] = given

        def note_change(_: Any) -> None:
            given.value = True

        editor.observe(note_change, "value")
        return given

    def _edit(self, field: Field) -> Any:
        widgets, default = self._widgets, field.default
        if field.kind == "choice":
            # By place, since choices may be equal to each other (1 and True are).
            texts = all(isinstance(value, str) for value in field.choices)
            labels = field.choices if texts else map(_json, field.choices)
            options = [(label, place) for place, label in enumerate(labels)]
            start = field.choices.index(default) if default in field.choices else 0
            editor = widgets.Dropdown(options=options, value=start)
            self._readers[field.name] = lambda: field.choices[editor.value]
            return editor
        if field.kind == "boolean":
            editor = widgets.Checkbox(value=default is True, indent=False)
            self._readers[field.name] = lambda: editor.value
            return editor
        if field.bounds is not None:
            low, high = field.bounds
            start = default if type(default) is int and low <= default <= high else low
            editor = widgets.BoundedIntText(value=start, min=low, max=high)
            self._readers[field.name] = lambda: editor.value
            return editor
        return self._write(field)

    def _write(self, field: Field) -> Any:
        """Return an editor of text, which is read when the step is taken."""
        default = field.default
        text = default if isinstance(default, str) and field.kind == "string" else ""
        if default is not None and field.kind != "string":
            text = _json(default)
        most = field.schema.get("maxLength")
        if isinstance(most, bool) or not isinstance(most, int | float):
            most = math.inf
        several = field.kind == "json" or (field.kind == "string" and most > _LONG)
        make = self._widgets.Textarea if several else self._widgets.Text
        editor = make(value=text, placeholder="JSON" if field.kind == "json" else "")
        self._readers[field.name] = lambda: field.read(editor.value)
        return editor


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
