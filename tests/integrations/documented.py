"""The blocks of ``docs/frameworks.md`` that run with a framework."""

from __future__ import annotations

import re
from types import CodeType

from tests.support.virtual_environments import ROOT

__all__ = ["documented"]


def documented(title: str) -> CodeType:
    """Compile the block of this title; an error names the title.

    Raises:
        ValueError: If there is not exactly one.
    """
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    fence = rf'^```python title="{re.escape(title)}"\n(.*?)^```$'
    (code,) = re.findall(fence, page, re.DOTALL | re.MULTILINE)
    return compile(code, f"frameworks.md, {title}", "exec")
