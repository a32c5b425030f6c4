"""Running the Python blocks of a page of Markdown, as a reader does: top to bottom.

The blocks of one page share their names. One that cannot run here says so to the
reader, in its title, and is compiled only::

    ```python title="Not run by the tests: needs an account"

Where a page names an address that a reader replaces by an own one, a test puts that of
a process on this machine in its place.

From a shell: ``python -m tests.system.docs.pages PAGE``.
"""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
_BLOCK: Final = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_RUN: Final = 'title="Not run by the tests'
_SECONDS: Final = 100.0


@dataclasses.dataclass(frozen=True)
class Block:
    line: int  # the page's line before the first one
    code: str
    runs: bool  # otherwise it is only compiled


def python_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start(2)), found[2], _NOT_RUN not in found[1])
        for found in _BLOCK.finditer(text)
    ]


def run_page(
    page: Path, folder: Path, addresses: Mapping[str, str] | None = None, last: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a page with its addresses replaced in a process, then the code `last`."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("ORS_", "OPENAI_"))}
    pairs = [part for pair in (addresses or {}).items() for part in pair]
    command = [sys.executable, "-W", "error", "-m", __name__, str(page), last, *pairs]
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        env={**own, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        check=False,
    )


def _execute(page: Path, last: str, addresses: Mapping[str, str]) -> None:
    """Run a page's blocks in this process; tracebacks name the lines of the page."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in python_blocks(page):
        code = block.code
        for written, real in addresses.items():
            code = code.replace(written, real)
        compiled = compile("\n" * block.line + code, str(page), "exec")
        if block.runs:
            exec(compiled, names)
    exec(last, names)


def _main(page: str, last: str = "", *pairs: str) -> None:
    _execute(Path(page), last, dict(zip(pairs[::2], pairs[1::2], strict=True)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
