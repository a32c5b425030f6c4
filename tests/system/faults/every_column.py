"""All ways to play, in the order in which the table names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.system.faults.columns import Column
from tests.system.faults.env_columns import RaisingEnv, TruncatingEnv, VectorEnv
from tests.system.faults.session_columns import AsyncioSession, BlockingSession

__all__ = ["COLUMNS"]

COLUMNS: Final[Sequence[type[Column]]] = (
    BlockingSession,
    AsyncioSession,
    RaisingEnv,
    TruncatingEnv,
    VectorEnv,
)
