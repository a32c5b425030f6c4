"""A Gymnasium adapter for every server that speaks the Open Reward Standard."""
