"""The tests of ors_gym."""
