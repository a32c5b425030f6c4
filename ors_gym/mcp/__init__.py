"""ORS environments for agents that speak MCP: one session is one episode.

The agent gets the tools and the prompt of the environment. It never sees the reward.
"""

from __future__ import annotations

from ors_gym.errors import needs_extra

with needs_extra("mcp", "ors_gym.mcp"):
    from ors_gym.mcp._host import EpisodeHost, ServedEpisode

__all__ = ["EpisodeHost", "ServedEpisode"]
