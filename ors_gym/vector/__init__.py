"""Many sessions in one process as a Gymnasium vector env."""

from ors_gym.vector._env import ORSVectorEnv

__all__ = ["ORSVectorEnv"]
