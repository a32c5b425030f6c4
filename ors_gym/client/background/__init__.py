"""The helper threads of a process: heartbeats, deletes, work that is waited for."""

from ors_gym.client.background._pending import Outcome, Pending, outcome_of
from ors_gym.client.background._sessions import Registered
from ors_gym.client.background._thread import (
    background,
    delete_sessions_on_sigterm,
    run_and_wait,
)

__all__ = [
    "Outcome",
    "Pending",
    "Registered",
    "background",
    "delete_sessions_on_sigterm",
    "outcome_of",
    "run_and_wait",
]
