"""A process that is abused by its server, and says what it cost.

    python -m tests.system.faults.measured_client URL ACTION MEGABYTES

The last one is the client's limit on a reply, or 0 for the usual one. Prints one line
of JSON: the error's class and message, the growth of this process's memory in MB, the
seconds of its own CPU, and the length of what was returned.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import ors_gym

_ADDRESS_SPACE: Final = 6 * 2**30
"""A bound for the worst, so that a mistake does not take the machine down."""


def _session(client: ors_gym.ORSClient) -> ors_gym.Session:
    return client.session(
        "box", split="train", index=0, call_timeout=60, setup_timeout=60
    )


def _prompt(client: ors_gym.ORSClient) -> Any:
    with _session(client) as session:
        return session.get_prompt()


def _call(client: ors_gym.ORSClient) -> Any:
    with _session(client) as session:
        session.get_prompt()
        return session.call_tool("go", {}, timeout=60)


def _hurried_call(client: ors_gym.ORSClient) -> Any:
    with _session(client) as session:
        session.get_prompt()
        return session.call_tool("go", {}, timeout=1.5)


ACTIONS: Final[dict[str, Callable[[ors_gym.ORSClient], Any]]] = {
    "connect": lambda client: client.list_environments(),
    "tools": lambda client: client.list_tools("box"),
    "tasks": lambda client: client.list_tasks("box", "train"),
    "prompt": _prompt,
    "call": _call,
    "hurried call": _hurried_call,
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
    print(  # noqa: T201
        json.dumps(
            {
                "error": error,
                "message": message,
                "megabytes": _peak_mb() - before,
                "seconds": time.process_time() - started,
                "length": length,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
