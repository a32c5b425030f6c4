"""The fields of a form, from the schema of a tool's input."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from ors_gym.display._html import escape, find_shell
from ors_gym.formats._schemas import describe_schema, resolve_schema
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["Clicks", "Field", "FieldKind", "Form", "list_fields"]

FieldKind: TypeAlias = Literal[
    "choice", "boolean", "integer", "number", "string", "json"
]

_KINDS: Final = ("boolean", "integer", "number", "string")
_EXACT: Final = 2**53
"""Up to which whole numbers a browser is exact."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One argument of a tool.

    Args:
        name: Its name.
        schema: What it has to be, references to the tool's definitions followed.
        words: The same in a few words.
        required: Whether it has to be given.
        kind: What it is edited as.
        choices: The values to choose from, for a ``choice``.
        bounds: The least and the greatest whole number, where both are known.
    """

    name: str
    schema: JSONObject
    words: str
    required: bool
    kind: FieldKind
    choices: tuple[Any, ...] = ()
    bounds: tuple[int, int] | None = None

    @property
    def default(self) -> Any:
        """Its default, or None."""
        return self.schema.get("default")

    def read(self, text: str) -> Any:
        """Read what was written into the field.

        Args:
            text: What was written.

        Returns:
            The value.

        Raises:
            ValueError: If it is no such value; says what is expected.

        Example:
            >>> Field("n", {}, "", True, "integer").read("12")
            12
            >>> Field("n", {}, "", True, "integer").read("twelve")
            Traceback (most recent call last):
            ValueError: n: 'twelve' is not an integer
        """
        if self.kind == "string":
            return text
        try:
            value = json.loads(text)
        except ValueError as error:
            said = f"not JSON ({error})" if self.kind == "json" else self._not_one()
            raise ValueError(f"{self.name}: {text!r:.80} is {said}") from None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "integer" and not (number and float(value).is_integer()):
            raise ValueError(f"{self.name}: {text!r:.80} is {self._not_one()}")
        if self.kind == "number" and not number:
            raise ValueError(f"{self.name}: {text!r:.80} is {self._not_one()}")
        return value

    def _not_one(self) -> str:
        return "not an integer" if self.kind == "integer" else f"not a {self.kind}"


def list_fields(tool: ToolSpec) -> list[Field] | None:
    """Return the fields of a tool's form.

    Args:
        tool: The tool.

    Returns:
        A field for each argument; None if the input is no object of known
        properties, and has to be written as JSON.

    Example:
        >>> schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> tool = {"name": "guess", "description": "", "input_schema": schema}
        >>> [(field.name, field.kind, field.required) for field in list_fields(tool)]
        [('n', 'integer', True)]
    """
    root = tool["input_schema"]
    if root is None:
        return []
    schema = resolve_schema(root, root, without_null=True)
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        empty = schema in ({}, {"type": "object"}) or properties == {}
        return [] if empty else None
    if any(key in schema for key in ("anyOf", "oneOf", "allOf")):
        return None
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    return [
        _field(str(name), part, root, required=name in needed)
        for name, part in properties.items()
    ]


def _field(name: str, part: Any, root: Any, *, required: bool) -> Field:
    schema = resolve_schema(part, root, without_null=True)
    words = describe_schema(part, root)
    choices = schema.get("enum")
    if "const" in schema:
        choices = [schema["const"]]
    if isinstance(choices, list) and choices:
        return Field(name, schema, words, required, "choice", tuple(choices))
    kind = schema.get("type")
    if kind not in _KINDS:
        return Field(name, schema, words, required, "json")
    bounds = _bounds(schema) if kind == "integer" else None
    return Field(name, schema, words, required, kind, bounds=bounds)


def _bounds(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    if any(
        key in schema for key in ("multipleOf", "exclusiveMinimum", "exclusiveMaximum")
    ):
        return None
    low, high = schema.get("minimum"), schema.get("maximum")
    if type(low) is int and type(high) is int and -_EXACT <= low <= high <= _EXACT:
        return low, high
    return None


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
            self._fields = [
                Field("", schema, describe_schema(schema, schema), True, "json")
            ]
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
        about = field.schema.get("description") if field.name else ""
        said = escape(field.words)
        if about:
            said += f"<br>{escape(about)}"
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


class Clicks:
    """Tells a click that waited while the kernel did what the last one said.

    A front end dates its messages. A click made sooner after another than that one
    then took was made before its result. Only dates of one front end are compared, so
    its clock need not be the kernel's; the way of a message is left out of account, so
    that a click on what was seen is never taken for an early one.
    """

    def __init__(self) -> None:
        self._last: tuple[str, dt.datetime] | None = None
        self._took = 0.0

    def is_early(self) -> bool:
        """Say whether the click that is being handled was made too early."""
        click = _read_click()
        if click is None or self._last is None or click[0] != self._last[0]:
            return False
        later = (click[1] - self._last[1]).total_seconds()
        # The clock of a front end may be set back.
        return 0 <= later < self._took

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """Keep when a click was made, and how long it takes to do what it says."""
        click, began = _read_click(), time.monotonic()
        try:
            yield
        finally:
            self._last, self._took = click, time.monotonic() - began


def _read_click() -> tuple[str, dt.datetime] | None:
    """Return the front end's session and the date of the message that is handled.

    None outside a message of a widget: code that clicks means it.
    """
    kernel = getattr(find_shell(), "kernel", None)
    parent: Any = getattr(kernel, "get_parent", dict)()
    header = parent.get("header") if isinstance(parent, Mapping) else None
    if not isinstance(header, Mapping) or header.get("msg_type") != "comm_msg":
        return None
    date = header.get("date")
    if not isinstance(date, dt.datetime):
        return None
    return str(header.get("session")), date
