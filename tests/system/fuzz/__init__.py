"""Broken replies, output files and schemas: nothing of ours fails in a foreign way."""
