"""The helper thread of a process: heartbeats, deletes, sessions opened ahead."""

from __future__ import annotations

from ors_gym.client.background._thread import abandon_in_background, background

__all__ = ["abandon_in_background", "background"]
