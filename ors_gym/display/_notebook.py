"""A playground of widgets: choose a task and a tool, fill in its form, step."""

from __future__ import annotations

from typing import Any

from ors_gym.display._forms import Clicks, Form
from ors_gym.display._game import Game
from ors_gym.display._html import (
    Fact,
    conversation_card,
    escape,
    message_card,
    reward_fact,
)
from ors_gym.errors import ORSError
from ors_gym.spaces.json_schema import validate
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["NotebookPlayer"]

_AS_TEXT = -1
"""The choice of writing an action as text, among the tools."""


class NotebookPlayer:
    """The widgets with which a person plays; a notebook shows it.

    Args:
        game: The env.
        widgets: The module ``ipywidgets``.
        task_index: The task to begin with.

    Attributes:
        box: All of it, as a widget.
        split, task, reset: The task's choosers and the button that begins an episode.
        tool, form, text: The chosen tool, its form, and an action as text.
        check: Whether a call is checked against the schema before it is sent.
        step: The button that takes a step.
        score: The reward so far.
        message: What is to be said, such as what is wrong with an entry.
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
        self._clicks = Clicks()
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
        """Do what a button says, but not what was said before the last result."""
        if self._clicks.is_early():
            if not self.message.value:
                self._say("A click before the last step's result was ignored.", "warn")
            return
        with self._clicks.handling():
            self._guarded(action)

    def _guarded(self, action: Any) -> None:
        """Do what a button says; what goes wrong is shown, not raised."""
        self.step.disabled = self.reset.disabled = True
        self.message.value = ""
        try:
            action()
        except _EntryError as error:
            self._say(str(error), "warn")
        except ORSError as error:
            self._say(f"{type(error).__name__}: {error}", "bad")
        except Exception as error:  # noqa: BLE001 - a widget's traceback is seen by none
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
    """Raised when a form cannot be sent as it is."""


def _check(tool: ToolSpec, given: JSONObject) -> None:
    schema = tool["input_schema"]
    problems = validate(schema, given) if schema is not None else []
    if problems:
        raise _EntryError(
            "not sent: " + "; ".join(problems) + " (without the check it is sent)"
        )
