"""A person plays an env: with buttons in a notebook, with words in a terminal."""

from ors_gym.playground.entry import play
from ors_gym.playground.game import Game
from ors_gym.playground.terminal import play_in_terminal

__all__ = ["Game", "play", "play_in_terminal"]
