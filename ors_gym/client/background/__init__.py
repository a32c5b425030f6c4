"""The helper threads of a process: heartbeats, deletes, work that is waited for."""

from ors_gym.client.background._pending import Completion, Pending, completion_of
from ors_gym.client.background._sessions import Registered
from ors_gym.client.background._thread import (
    background,
    delete_sessions_on_sigterm,
    run_and_wait,
)

__all__ = [
    "Completion",
    "Pending",
    "Registered",
    "background",
    "completion_of",
    "delete_sessions_on_sigterm",
    "run_and_wait",
]
