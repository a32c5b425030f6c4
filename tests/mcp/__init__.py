"""Tests of `ors_gym.mcp`."""
