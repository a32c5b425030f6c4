"""The README's code runs as it is written, and its loop stands at its head."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.system.docs.pages import ROOT, python_blocks, run_page

README = ROOT / "README.md"
EXTRAS = (
    r"(?:ors-gym|\"\.|'\.)\[([\w,]+)\]|"
    r"(?:needs_extra\(|import_extra\(\s*[\w.\"]+,)\s*\"(\w+)\""
)


def test_the_code_runs(tmp_path: Path) -> None:
    assert sum(block.runs for block in python_blocks(README)) >= 4
    done = run_page(README, tmp_path, last="envs.close()")
    assert done.returncode == 0, done.stderr
    assert "success rate" in done.stdout


def test_a_complete_loop_stands_within_the_first_lines() -> None:
    head = README.read_text().splitlines()[:20]
    assert any("gym.make(" in line for line in head)
    assert "env.close()" in head


def test_the_extras_that_are_named_anywhere_are_there() -> None:
    root = README.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pages = [README, *root.glob("docs/*.md"), *root.glob("notebooks/*.ipynb")]
    named: set[str] = set()
    for path in [*pages, *root.glob("ors_gym/**/*.py")]:
        for listed, imported in re.findall(EXTRAS, path.read_text()):
            named.update((listed or imported).split(","))
    assert len(named) > 5
    assert named <= set(project["optional-dependencies"])
