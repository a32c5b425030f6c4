"""Clicks that were made before what they answer was to be seen."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ors_gym.cards.shell import find_shell

__all__ = ["Clicks"]


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
