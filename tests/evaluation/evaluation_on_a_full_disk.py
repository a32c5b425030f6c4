"""An evaluation on a disk that becomes full, and once more when there is room.

Run as ``python -m tests.evaluation.evaluation_on_a_full_disk DIRECTORY TASKS``, in a
mount namespace of its own: it mounts a small file system. The first line that it prints
is ``mounted``.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from ors_gym.evaluation import Evaluation
from ors_gym.server import serve
from tests.evaluation.evaluation_process import rows_of, run

_BYTES = 128 * 1024


def main(directory: Path, tasks: int) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(directory)]
    subprocess.run(command, check=True)
    sys.stdout.write("mounted\n")
    output, ballast = directory / "run.jsonl", directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        file.write(b"x" * (_BYTES - 40 * 1024))
    with serve() as url:
        first = run(url, "math", output, tasks, 1)
        written = len(rows_of(output))
        whole = output.read_bytes().endswith(b"\n")
        loaded = len(Evaluation.load(output).records)
        ballast.unlink()
        second = run(url, "math", output, tasks, 1)
        said = {
            "stopped": first.stopped,
            "played": len(first.records),
            "written": written,
            "whole": whole,
            "loaded": loaded,
            "outcomes": second.outcomes,
            "rows": sorted(rows_of(output).values()),
            "files": sorted(file.name for file in directory.iterdir()),
        }
    sys.stdout.write(f"{json.dumps(said)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
