"""The shell of IPython that cards and widgets are shown by, where one runs."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["find_shell"]


def find_shell() -> Any:
    """Return IPython's running shell; None without one.

    IPython is not imported for it. A module of that name that is half imported, or
    another's stand-in, has no shell.

    Example:
        >>> find_shell() is None
        True
    """
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
