"""Installs the agent programs that the tests drive, outside the checkout.

    python -m tests.support.agent_programs

They come from npm, in the versions that ``ors_gym/agents/programs.toml`` names.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ors_gym.agents import AGENT_PROGRAMS
from tests.support.virtual_environments import (
    VenvBuildError,
    cache_directory,
    locked,
)

PACKAGES: Final = {
    name: f"{program.install.split()[-1]}@{program.tried_with}"
    for name, program in AGENT_PROGRAMS.items()
}
"""What is installed for each program."""
_TIMEOUT: Final = 600.0


def ensure_agent_programs() -> Path:
    """Return the directory of the programs, installing them first if need be."""
    listed = sorted(PACKAGES.values())
    digest = hashlib.sha256("\n".join(listed).encode()).hexdigest()[:10]
    directory = cache_directory() / f"agent-programs-{digest}"
    complete = directory / "complete"
    if not complete.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with locked(directory.with_name(f"{directory.name}.lock")):
            if not complete.exists():
                _install(directory, listed)
                complete.touch()
    return directory / "node_modules" / ".bin"


def _install(directory: Path, packages: list[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise VenvBuildError("npm is not installed")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory)]
    try:
        done = subprocess.run(
            [*command, *packages],
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise VenvBuildError(f"npm took more than {_TIMEOUT:.0f} s") from error
    if done.returncode:
        raise VenvBuildError(
            f"npm could not install {' '.join(packages)} (is there a network?): "
            f"{done.stderr.strip()[-1500:]}"
        )


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_agent_programs()}\n")
