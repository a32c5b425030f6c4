"""Recorded servers."""
