"""Spaces, values and actions of Gymnasium as JSON, for both ends of a served env."""
