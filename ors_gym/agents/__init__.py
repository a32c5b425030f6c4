"""Agent programs as policies: Claude Code, Codex, Gemini CLI, OpenCode, or yours.

`CommandPolicy` runs a program for each episode, which plays it over MCP. How a program
is run and read is data: `AGENT_PROGRAMS`.
"""

from __future__ import annotations

from ors_gym.agents._command_policy import CommandPolicy
from ors_gym.agents._programs import AGENT_PROGRAMS, AgentProgram, read_programs

__all__ = ["AGENT_PROGRAMS", "AgentProgram", "CommandPolicy", "read_programs"]
