"""Play in a notebook, with widgets: a task, a tool, its form, the conversation."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ors_gym.display._cards import conversation_card
from ors_gym.display._game import Field, Game, list_fields
from ors_gym.display._html import Fact, compact_json, escape, message_card, reward_fact
from ors_gym.display._show import find_shell
from ors_gym.formats._schemas import bundle_schema, describe_schema
from ors_gym.spaces.json_schema import validate
from ors_gym.types import JSONObject, ToolSpec

_AS_TEXT: Final = -1
"""Stands among the tools for writing an action as text."""
_SEVERAL_LINES_FROM: Final = 80
"""Characters from which an argument of text is edited in several lines."""


class NotebookPlayer:
    """The widgets with which a person plays; a notebook shows it.

    Attributes:
        box: All of it, as a widget.
        split, task, reset: The task's choosers and the button that begins an episode.
        tool, form, text: The chosen tool, its form, and an action as text.
        check: The checkbox for checking a call against the schema before it is sent.
        step: The button that takes a step.
        score: The reward so far.
        message: A message to the player, such as what is wrong with an entry.
        transcript: The episode as a card.
    """

    def __init__(self, game: Game, widgets: Any, task_index: int = 0) -> None:
        self.game = game
        self._widgets = widgets
        splits = [split["name"] for split in game.inner.splits]
        self.split = widgets.Dropdown(
            options=[("its split", None), *((name, name) for name in splits)],
            description="split",
        )
        self.task = widgets.BoundedIntText(
            value=task_index, min=0, max=2**53, description="task"
        )
        self.reset = widgets.Button(description="Reset", icon="refresh")
        self.tool = widgets.Dropdown(description="tool")
        self.about = widgets.HTML()
        self.text = widgets.Textarea(placeholder="an action as a model would write it")
        self.text.layout.width = "auto"
        self.check = widgets.Checkbox(
            value=True, description="check before sending", indent=False
        )
        self.step = widgets.Button(
            description="Step", icon="play", button_style="primary"
        )
        self.message = widgets.HTML()
        self.score = widgets.HTML()
        self.transcript = widgets.HTML()
        self._place = widgets.VBox()
        self.form: Form | None = None
        self.box = widgets.VBox(
            [
                widgets.HBox([self.split, self.task, self.reset, self.score]),
                self.transcript,
                self.tool,
                self.about,
                self._place,
                widgets.HBox([self.step, self.check]),
                self.message,
            ]
        )
        self.box.layout.max_width = "960px"
        self.box.children[0].layout.flex_flow = "row wrap"
        self.score.layout.margin = "0 0 0 12px"
        self._clicks = _Clicks()
        self.reset.on_click(lambda _: self._clicked(self._reset))
        self.step.on_click(lambda _: self._clicked(self._step))
        self.tool.observe(lambda _: self._guarded(self._choose_tool), "value")
        self._guarded(self._reset)

    @property
    def total_reward(self) -> float:
        """The reward so far."""
        return self.game.transcript.total

    def _repr_mimebundle_(self, **arguments: Any) -> Any:
        return self.box._repr_mimebundle_(**arguments)

    def __repr__(self) -> str:
        total = self.total_reward
        return f"<NotebookPlayer of {self.game.inner}, reward {total:g} so far>"

    def _clicked(self, action: Any) -> None:
        """Do what a button says, unless it was clicked before the last result."""
        if self._clicks.is_early():
            if not self.message.value:
                self._say("A click before the last step's result was ignored.", "warn")
            return
        with self._clicks.handling():
            self._guarded(action)

    def _guarded(self, action: Any) -> None:
        """Show what goes wrong: nobody sees what a widget's callback raises."""
        self.step.disabled = self.reset.disabled = True
        self.message.value = ""
        try:
            action()
        except _EntryError as error:
            self._say(str(error), "warn")
        except Exception as error:  # noqa: BLE001 - of whatever kind
            self._say(f"{type(error).__name__}: {error}", "bad")
        finally:
            self.reset.disabled = False
            self.step.disabled = self.game.ended
            self._show()

    def _say(self, text: str, colour: str) -> None:
        self.message.value = message_card(text, colour)

    def _reset(self) -> None:
        self.game.reset(self.task.value, self.split.value)
        self._list_tools()

    def _list_tools(self) -> None:
        tools = self.game.tools
        labels = [(tool["name"], place) for place, tool in enumerate(tools)]
        options = [*labels, ("(write it as text)", _AS_TEXT)]
        if list(self.tool.options) != options:
            self.tool.options = options
        if self.tool.value is None:
            self.tool.value = options[0][1]
        self._choose_tool()

    def _choose_tool(self) -> None:
        place = self.tool.value
        if place is None or place >= len(self.game.tools):
            return
        if place == _AS_TEXT:
            self.form = None
            self.about.value = ""
            self._place.children = [self.text]
            return
        tool = self.game.tools[place]
        self.about.value = escape(tool["description"] or "")
        self.form = Form(self._widgets, tool)
        self._place.children = [self.form.box]

    def _step(self) -> None:
        if self.form is None:
            action: Any = self.text.value
        else:
            tool = self.game.tools[self.tool.value]
            try:
                given = self.form.read()
            except ValueError as error:
                raise _EntryError(str(error)) from None
            if self.check.value:
                _check(tool, given)
            action = {"tool": tool["name"], "input": given}
        self.game.step(action)
        if self.game.ended:
            note = self.game.transcript.entries[-1].note
            self._say(f"The episode is over: {note}. Reset begins another.", "accent")

    def _show(self) -> None:
        transcript = self.game.transcript
        steps = f"{transcript.steps} step" + ("" if transcript.steps == 1 else "s")
        self.score.value = f"<b>reward {transcript.total:g}</b> after {steps}"
        facts = [Fact(transcript.task), reward_fact(transcript.total)]
        card = conversation_card(
            transcript.title or self.game.inner.environment, transcript.entries, facts
        )
        # Reversed, a column is scrolled to its end, where the newest step is.
        self.transcript.value = (
            '<div style="max-height:560px;overflow:auto;display:flex;'
            f'flex-direction:column-reverse">{card}</div>'
        )


class _EntryError(Exception):
    """Raised when what the player entered cannot be sent."""


def _check(tool: ToolSpec, given: JSONObject) -> None:
    schema = tool["input_schema"]
    problems = validate(schema, given) if schema is not None else []
    if problems:
        raise _EntryError(
            f"not sent: {'; '.join(problems)} (untick the check to send it anyway)"
        )


class Form:
    """The form of one tool.

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
            schema = bundle_schema(tool["input_schema"] or {})
            self._fields = [
                Field("", schema, describe_schema(schema, schema), True, "json")
            ]
        self._readers: dict[str, Callable[[], Any]] = {}
        rows = [self._row(field) for field in self._fields]
        self.box = widgets.VBox(rows)

    def read(self) -> JSONObject:
        """Return the input as it was written; a `ValueError` says what is wrong."""
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
            parts.insert(1, self._make_give_checkbox(field, editor))
        row = self._widgets.HBox(parts)
        row.layout.flex_flow = "row wrap"
        return row

    def _make_give_checkbox(self, field: Field, editor: Any) -> Any:
        given = self._widgets.Checkbox(value=False, description="give", indent=False)
        given.layout.width = "70px"
        self.given[field.name] = given

        def give(_: Any) -> None:
            given.value = True

        editor.observe(give, "value")
        return given

    def _edit(self, field: Field) -> Any:
        widgets, default = self._widgets, field.default
        if field.kind == "choice":
            # The values are places, since choices may be equal (1 and True are).
            texts = all(isinstance(value, str) for value in field.choices)
            labels = field.choices if texts else map(compact_json, field.choices)
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
        return self._edit_as_text(field)

    def _edit_as_text(self, field: Field) -> Any:
        default = field.default
        text = default if isinstance(default, str) and field.kind == "string" else ""
        if default is not None and field.kind != "string":
            text = compact_json(default)
        most = field.schema.get("maxLength")
        if isinstance(most, bool) or not isinstance(most, int | float):
            most = math.inf
        several = field.kind == "json" or (
            field.kind == "string" and most > _SEVERAL_LINES_FROM
        )
        make = self._widgets.Textarea if several else self._widgets.Text
        editor = make(value=text, placeholder="JSON" if field.kind == "json" else "")
        self._readers[field.name] = lambda: field.read(editor.value)
        return editor


class _Clicks:
    """Detects clicks queued while the previous one was being handled.

    A front end dates its messages. A click that follows the previous one sooner than
    the handling of that one took was made before its result was seen. Only dates of
    one front end are compared, so its clock may differ from the kernel's. The time
    that a message travels is not counted, so that a click on a result that was seen
    is never called early.
    """

    def __init__(self) -> None:
        self._last: tuple[str, dt.datetime] | None = None
        self._took = 0.0

    def is_early(self) -> bool:
        """Say whether the click that is handled now was made too early."""
        click = _read_click()
        if click is None or self._last is None or click[0] != self._last[0]:
            return False
        later = (click[1] - self._last[1]).total_seconds()
        # The clock of a front end may be set back.
        return 0 <= later < self._took

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """Record when a click was made, and how long handling it takes."""
        click, began = _read_click(), time.monotonic()
        try:
            yield
        finally:
            self._last, self._took = click, time.monotonic() - began


def _read_click() -> tuple[str, dt.datetime] | None:
    """Return the front end's session and the date of the click that is handled.

    A click of code has neither, and always counts.
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
