"""The helper thread of a process: heartbeats, deletes, sessions opened ahead."""

from ors_gym.client.background._run_and_wait import run_and_wait
from ors_gym.client.background._thread import background

__all__ = ["background", "run_and_wait"]
