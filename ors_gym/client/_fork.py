"""What a forked child resets: its parent's connections, threads and event loops."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

__all__ = ["register_for_fork"]


class _Resettable(Protocol):
    def reset_after_fork(self) -> None: ...


_registered: Final[weakref.WeakSet[_Resettable]] = weakref.WeakSet()


def register_for_fork(resettable: _Resettable) -> None:
    """Have a forked child call `reset_after_fork` (docs/wire.md, point 14)."""
    _registered.add(resettable)


def _reset_all() -> None:
    for resettable in list(_registered):
        resettable.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all)
