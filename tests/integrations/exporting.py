"""Exports a run in a process of its own, and prints how much memory that took.

python -m tests.integrations.exporting RUN FORMAT OUTPUT
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from ors_gym.evaluation import export


def main(run: str, to: Any, output: str) -> None:
    done = export(run, to, output, progress=False)
    # Not ru_maxrss, which begins with that of the parent.
    status = Path("/proc/self/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    sys.stdout.write(json.dumps({"rows": done.rows, "peak_kib": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
