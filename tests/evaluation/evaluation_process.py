"""An evaluation in a process of its own, to be killed or interrupted.

Run as ``python -m tests.evaluation.evaluation_process URL ENVIRONMENT OUTPUT TASKS
EPISODES [ENGINE]``.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ors_gym.evaluation import Evaluation, Options, evaluate
from tests.evaluation.contract_evaluations import answer

ROOT = Path(__file__).parents[2]


def run(
    url: str, name: str, output: Path, tasks: int, episodes: int, engine: Any = "local"
) -> Evaluation:
    options: Options = {"split": "train", "progress": False, "engine": engine}
    options |= {"episodes_per_task": episodes, "output": output}
    work = (url, name, range(tasks), answer)
    return evaluate(*work, max_concurrent=16, **options)


def start(*arguments: str | int | Path) -> subprocess.Popen[str]:
    module = "tests.evaluation.evaluation_process"
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for_rows(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not output.exists() or output.read_bytes().count(b"\n") <= count:
        assert process.poll() is None, "the process ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rows_of(output: Path) -> Counter[tuple[int, int]]:
    _, *lines = output.read_text().splitlines()
    rows = map(json.loads, lines)
    return Counter((row["task_index"], row["episode"]) for row in rows)


if __name__ == "__main__":
    url, environment, output, tasks, episodes, *engine = sys.argv[1:]
    found = run(url, environment, Path(output), int(tasks), int(episodes), *engine)
    said = {"rows": len(found.results), "stopped": found.stopped}
    # A line of its own, whatever else is written there.
    sys.stdout.write(f"\n{json.dumps(said)}\n")
