"""The wrappers of `ors_gym.wrappers` for vector envs.

They behave as a vector env of wrapped envs does, in every autoreset mode, and work on
``gym.make_vec("ors/...")``, which takes no wrappers of single envs, and on Gymnasium's
own vector envs.
"""

from ors_gym.wrappers.vector._discrete_tools import DiscreteTools
from ors_gym.wrappers.vector._native_spaces import NativeSpaces
from ors_gym.wrappers.vector._parsed_text import ParsedText

__all__ = ["DiscreteTools", "NativeSpaces", "ParsedText"]
