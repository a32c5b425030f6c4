"""The notebooks as they are committed: run, small, and without a trace of a machine.

They are executed by ``pytest --nbmake`` (see ``.ci/run``), those that train within the
frameworks' environment.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor

from benchmarks.first_episode import in_a_kernel
from ors_gym.server import serve
from tests.system.notebooks.refresh import NOTEBOOKS

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LARGEST = 400_000  # bytes; pictures are most of it

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def test_they_are_all_there() -> None:
    assert [path.stem for path in PATHS] == [
        *("01_quickstart", "02_explore_an_environment", "03_your_own_server"),
        *("04_evaluate_a_policy", "05_train_ppo", "06_train_an_llm_grpo"),
        *("07_many_sessions", "08_serve_what_you_have"),
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


NAMES = ["01_quickstart", "02_explore_an_environment"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_reads_well_on_a_desk_and_on_a_phone(name, chromium, tmp_path):
    text, _ = HTMLExporter().from_filename(NOTEBOOKS / f"{name}.ipynb")
    path = tmp_path / f"{name}.html"
    path.write_text(text)
    for width in (1280, 390):
        with chromium.open(path, width=width) as page:
            assert (page.overflow(), page.count("h1")) == (0, 1)
            assert page.count(".ors-card") >= 1
            shown = name.partition("_")[2].replace("_", " ")
            assert shown in page.text("h1").lower()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
def test_an_episode_in_a_notebook_cell() -> None:
    assert in_a_kernel() > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
def test_a_notebook_runs_from_a_cassette(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment is served; what was recorded with `ors-gym record` is."""
    notebook = nbformat.read(NOTEBOOKS / "01_quickstart.ipynb", 4)
    cassette = Path(__file__).with_name("01_quickstart.cassette.jsonl")
    with serve(cassette=cassette) as base_url:
        monkeypatch.setenv("ORS_BASE_URL", base_url)
        played, _ = ExecutePreprocessor(timeout=60).preprocess(notebook)
    printed = [
        [output.text for output in cell.outputs if output.output_type == "stream"]
        for book in (played, nbformat.read(NOTEBOOKS / "01_quickstart.ipynb", 4))
        for cell in book.cells
        if cell.cell_type == "code"
    ]
    half = len(printed) // 2
    assert printed[:half] == printed[half:]
    # An action that was not recorded stops it.
    (step,) = (cell for cell in notebook.cells if '{"number": 8}' in cell.source)
    step.source = step.source.replace('{"number": 8}', '{"number": 9}')
    with serve(cassette=cassette) as base_url:
        monkeypatch.setenv("ORS_BASE_URL", base_url)
        with pytest.raises(CellExecutionError, match="input.number is 9, was 8"):
            ExecutePreprocessor(timeout=60).preprocess(notebook)
