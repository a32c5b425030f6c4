"""The README's code runs as it is written, one block after another."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    script = "\n".join([*blocks, "envs.close()"])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "success rate" in done.stdout


def test_a_complete_loop_stands_within_the_first_lines() -> None:
    head = README.read_text().splitlines()[:20]
    assert any("gym.make(" in line for line in head)
    assert "env.close()" in head


def test_the_files_it_names_are_there() -> None:
    for target in re.findall(r"\]\(((?!http|#)[^)]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
