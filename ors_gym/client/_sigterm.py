"""An opt-in for SIGTERM, since a library installs no signal handlers of its own."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ors_gym.client.background._thread import background

__all__ = ["delete_sessions_on_sigterm"]


def delete_sessions_on_sigterm(timeout: float = 5.0) -> None:
    """Have SIGTERM delete this process's sessions before it takes its effect.

    Call it in the main thread. The handler that was there before runs afterwards;
    where there was none, the process ends as it would have without.

    Args:
        timeout: Seconds that the deletes may take together.

    Raises:
        ValueError: If this is not the main thread.

    Example:
        >>> import signal
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> delete_sessions_on_sigterm()
        >>> _ = signal.signal(signal.SIGTERM, before)
    """
    before = signal.getsignal(signal.SIGTERM)

    def delete_sessions(number: int, frame: FrameType | None) -> None:
        background().delete_all(timeout)
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, delete_sessions)
