"""The helper threads of a process: heartbeats, deletes, work that is waited for."""

from ors_gym.client.background._thread import background, run_and_wait

__all__ = ["background", "run_and_wait"]
