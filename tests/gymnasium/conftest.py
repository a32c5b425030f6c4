"""What pytest must not import here."""

from __future__ import annotations

# Runs where Minari is, which is an environment of its own.
collect_ignore = ["minari_recording.py"]
