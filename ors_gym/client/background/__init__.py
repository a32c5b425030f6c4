"""The helper threads of a process: heartbeats, deletes, work that is waited for."""

from ors_gym.client.background._thread import (
    background,
    delete_sessions_on_sigterm,
    run_and_wait,
)

__all__ = ["background", "delete_sessions_on_sigterm", "run_and_wait"]
