"""Runs notebooks and keeps their outputs, small and the same on every machine.

    python -m tests.system.notebooks.refresh notebooks/01_quickstart.ipynb ...

In an environment that has what the notebook trains with (see ``tests.integrations``).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient

NOTEBOOKS: Final = Path(__file__).parents[3] / "notebooks"
_TIMEOUT: Final = 600  # seconds for one cell
_KERNEL: Final = {"display_name": "Python 3", "language": "python", "name": "python3"}


def refresh(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook, timeout=_TIMEOUT, kernel_name="python3", resources=resources
    )
    client.execute()
    clean(notebook)
    nbformat.write(notebook, path)


def clean(notebook: Any) -> None:
    """Drop what differs from run to run: bars of progress, and pictures stored twice."""
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if not _is_bar(one)]
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/jpeg", None)


def _is_bar(output: Any) -> bool:
    text = output.get("text", "")
    # Without ipywidgets, tqdm says so and shows its bars as text.
    is_progress = "\r" in text or "TqdmWarning" in text or not text.strip()
    return output.get("name") == "stderr" and is_progress


def main(names: Sequence[str]) -> int:
    for path in map(Path, names or sorted(map(str, NOTEBOOKS.glob("*.ipynb")))):
        sys.stdout.write(f"{path.name}\n")
        refresh(path.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
