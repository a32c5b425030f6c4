"""Running scripts under Node, and the type checker of their annotations."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.virtual_environments import cache_directory

__all__ = ["CLIENT", "decode", "find_typescript", "play"]

CLIENT: Final = Path(__file__).parents[3] / "docs" / "clients" / "ors.mjs"
_DIRECTORY: Final = Path(__file__).parent
_TYPESCRIPT: Final = "5.9.3"
_SECONDS: Final = 90.0
_OLDEST: Final = 20


def _node() -> str:
    """Return Node's path, or skip the test."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node: the JavaScript client is not run")
    said = subprocess.run([found, "--version"], capture_output=True, check=True).stdout
    if int(said.decode().removeprefix("v").split(".")[0]) < _OLDEST:
        pytest.skip(f"node {said.decode().strip()} is older than {_OLDEST}")
    return found


def _run(script: str, *arguments: str, given: str = "") -> Any:
    done = subprocess.run(
        [_node(), str(_DIRECTORY / script), *arguments],
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def play(url: str, environment: str = "Contract", **told: Any) -> Any:
    """Play what ``play.mjs`` is told, and return what it printed."""
    told = {"url": url, "environment": environment, **told}
    return _run("play.mjs", json.dumps(told))


def decode(streams: list[list[str]]) -> list[Any]:
    """Decode event streams, each a list of pieces in base64.

    Returns:
        For each a list of ``[event, data]``, or the kind of the error.
    """
    given = json.dumps([{"pieces": pieces} for pieces in streams])
    decoded: list[Any] = _run("decode.mjs", given=given)
    return decoded


def find_typescript() -> str:
    """Return TypeScript's compiler, installed once, or skip the test."""
    place = cache_directory() / f"typescript-{_TYPESCRIPT}"
    compiler = place / "node_modules" / ".bin" / "tsc"
    npm = shutil.which("npm")
    if not compiler.exists():
        if npm is None:
            pytest.skip("no npm: TypeScript cannot be installed")
        place.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place)]
        done = subprocess.run(
            [*command, f"typescript@{_TYPESCRIPT}"],
            capture_output=True,
            encoding="utf-8",
            timeout=_SECONDS,
            env={**os.environ, "npm_config_update_notifier": "false"},
            check=False,
        )
        if done.returncode != 0 or not compiler.exists():
            pytest.skip(f"TypeScript could not be installed: {done.stderr[-300:]}")
    return str(compiler)
