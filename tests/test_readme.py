"""The README's code runs as it is written, and its loop stands at its head."""

from __future__ import annotations

from pathlib import Path

from tests.docs.pages import ROOT, python_blocks, run_page

README = ROOT / "README.md"


def test_the_code_runs(tmp_path: Path) -> None:
    assert sum(block.runs for block in python_blocks(README)) >= 4
    done = run_page(README, tmp_path, last="envs.close()")
    assert done.returncode == 0, done.stderr
    assert "success rate" in done.stdout


def test_a_complete_loop_stands_within_the_first_lines() -> None:
    head = README.read_text().splitlines()[:20]
    assert any("gym.make(" in line for line in head)
    assert "env.close()" in head
