"""Commands that a test runs to their end."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.virtual_environments import ROOT


def run(
    *command: str | Path,
    seconds: float = 60.0,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command with these variables besides the usual ones; take its output."""
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=seconds,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        check=False,
    )


def run_python(
    *arguments: str | Path,
    seconds: float = 60.0,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, *arguments, seconds=seconds, environment=environment)
