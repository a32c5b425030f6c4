"""How long a new user waits: import, ``gym.make("ors/math")``, one episode.

``python -m benchmarks.first_episode`` measures it in a script and in a notebook
kernel, the embedded server's start included.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from jupyter_client.manager import start_new_kernel

from benchmarks.rows import Row

CODE = """
import time
start = time.perf_counter()
import gymnasium, ors_gym
from ors_gym.server import REFERENCE_PLAYERS
env = gymnasium.make("ors/math")
observation, info = env.reset(seed=0)
action = REFERENCE_PLAYERS["math"]()(observation, env.unwrapped.tools)
observation, reward, terminated, truncated, info = env.step(action)
env.close()
assert reward == 1.0 and terminated
print(time.perf_counter() - start)
"""


def environment() -> dict[str, str]:
    """Return the process's environment without another server's address."""
    return {k: v for k, v in os.environ.items() if not k.startswith("ORS_")}


def in_a_script() -> float:
    """Return the seconds of a fresh interpreter, its own start included."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", CODE],
        check=True,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def in_a_kernel() -> float:
    """Return the seconds that a cell takes in a fresh notebook kernel."""
    manager, client = start_new_kernel(env=environment())
    try:
        printed: list[str] = []

        def keep(message: dict[str, dict[str, str]]) -> None:
            printed.append(message["content"].get("text", ""))

        reply = client.execute_interactive(CODE, timeout=60, output_hook=keep)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("".join(reply["content"]["traceback"]))
        return float("".join(printed))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def measure(runs: int) -> list[Row]:
    """Measure what the design promises of the first episode.

    Args:
        runs: How often each is measured.

    Returns:
        The promises, with the median of the runs.
    """
    scripts, kernels = [], []
    for _ in range(runs):
        scripts.append(in_a_script())
        kernels.append(in_a_kernel())
    return [
        Row(f"first episode in a {where}", statistics.median(seconds), 3, unit="s")
        for where, seconds in (("script", scripts), ("notebook cell", kernels))
    ]


def main() -> None:
    """Print the medians of five runs each."""
    for row in measure(5):
        print(f"{row.what}: {row.figure}, budget {row.budget}")


if __name__ == "__main__":
    main()
