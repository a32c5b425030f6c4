"""ORS environments for agents that speak MCP: one session is one episode.

The agent gets the tools and the prompt of the environment. It never sees the reward,
which goes to the rows of an output file.

- `serve` lets agents play over HTTP, each an episode of its own; `serve_stdio` lets the
  agent play that started this process.
- `EpisodeHost` gives an address to each `LiveEpisode` of a program.
"""

from __future__ import annotations

from ors_gym.errors import needs_extra

# The files:
#
#   _episode_server  an episode as an MCP server: what an agent reads and does
#   _http            an episode over HTTP, and the HTTP server
#   _host            live episodes, each at an address that nobody can guess
#   _rows            which task an agent plays, and the row that its episode leaves
#   _serve           an environment for agents: sessions, names and standard streams
with needs_extra("mcp", "ors_gym.mcp"):
    from ors_gym.mcp._host import EpisodeHost, ServedEpisode
    from ors_gym.mcp._serve import serve, serve_async, serve_stdio

__all__ = ["EpisodeHost", "ServedEpisode", "serve", "serve_async", "serve_stdio"]
