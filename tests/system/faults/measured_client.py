"""A process that is abused by its server, and says what it cost.

    python -m tests.system.faults.measured_client URL ACTION MEGABYTES

The last one is the client's limit on a reply, or 0 for the usual one. Prints one line
of JSON: the error's class and message, the growth of this process's memory in MB, the
seconds of its own CPU, and the length of what was returned.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import ors_gym

_ADDRESS_SPACE: Final = 6 * 2**30
"""A bound for the worst, so that a mistake does not take the machine down."""


def _play(client: ors_gym.ORSClient, call_timeout: float | None = None) -> Any:
    """Get a prompt; if there is a time for it, make a call too."""
    task: Any = {"split": "train", "index": 0}
    with client.session("box", **task, call_timeout=60, setup_timeout=60) as session:
        prompt = session.get_prompt()
        if call_timeout is None:
            return prompt
        return session.call_tool("go", {}, timeout=call_timeout)


ACTIONS: Final[dict[str, Callable[[ors_gym.ORSClient], Any]]] = {
    "connect": lambda client: client.list_environments(),
    "tools": lambda client: client.list_tools("box"),
    "tasks": lambda client: client.list_tasks("box", "train"),
    "prompt": _play,
    "call": lambda client: _play(client, 60),
    "hurried call": lambda client: _play(client, 1.5),
}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(url: str, action: str, megabytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    before = _peak_mb()
    started = time.process_time()
    error, message, length = "", "", 0
    limits = ors_gym.Limits()
    if megabytes:
        size = megabytes * 2**20
        limits = ors_gym.Limits(reply_bytes=size, body_bytes=size)
    with ors_gym.ORSClient(url, limits=limits) as client:
        try:
            length = len(ACTIONS[action](client))
        except ors_gym.ORSError as caught:
            error, message = type(caught).__name__, str(caught)
    said = {"error": error, "message": message, "length": length}
    said |= {"megabytes": _peak_mb() - before, "seconds": time.process_time() - started}
    print(json.dumps(said))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
