"""Packages of npm that tests run, installed once, outside the checkout."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.support.virtual_environments import (
    VenvBuildError,
    cache_directory,
    locked,
)

_TIMEOUT: Final = 600.0


def ensure_packages(name: str, packages: Iterable[str]) -> Path:
    """Return the directory of the programs, installing them first if need be.

    Raises:
        VenvBuildError: If npm is missing, or cannot install them.
    """
    listed = sorted(packages)
    digest = hashlib.sha256("\n".join(listed).encode()).hexdigest()[:10]
    directory = cache_directory() / f"{name}-{digest}"
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
