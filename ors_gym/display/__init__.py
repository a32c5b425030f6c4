"""Whatever people look at: transcripts, cards, pictures, the playground."""

from __future__ import annotations

from ors_gym.display._play import play
from ors_gym.display._show import register_formatters, show

__all__ = ["play", "register_formatters", "show"]
