"""Which cases of a test belong to the usual run, and which to the slow one."""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.servers.venvs import SDKS


def mostly_slow(values: Iterable[Any], usual: int = 1) -> list[Any]:
    """Make parameters of which only the first few are in the usual run.

    For cases that each start processes and differ little. A tuple stands for several
    arguments.
    """
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [
        pytest.param(*row, marks=[pytest.mark.slow] if number >= usual else [])
        for number, row in enumerate(rows)
    ]


on_one_sdk = pytest.mark.parametrize(
    "server",
    mostly_slow(name for name, sdk in SDKS.items() if sdk.current),
    indirect=True,
)
"""Of the current SDKs, the usual run plays a test on the first."""
