"""The notebooks as they are committed: run, small, and without a trace of a machine.

They are executed by ``pytest --nbmake`` (see ``.ci/run``), those that train within the
frameworks' environment.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[3]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 400_000
"""Bytes; pictures are most of it."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_they_are_all_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart",
        "02_explore_an_environment",
        "03_your_own_server",
        "04_evaluate_a_policy",
        "05_train_ppo",
        "06_train_an_llm_grpo",
        "07_many_sessions",
    ]


@every_notebook
def test_every_cell_ran_in_order_and_none_failed(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@every_notebook
def test_it_is_small_and_names_no_place_of_a_machine(path: Path) -> None:
    text = path.read_text()
    assert len(text) < LARGEST
    assert not re.search(r"/(root|home|tmp|work|usr|Users)/", text)


@every_notebook
def test_its_links_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(((?!http|#)[^)]+)\)", prose):
        assert (path.parent / target).exists(), target
