"""The contract check, on real servers."""
