"""Views of an env for classical reinforcement learning.

`DiscreteTools` makes tool calls numbers, `ParsedText` makes numbers of text; together
they let a table or a policy network play an ORS environment. Both stack with each
other and with Gymnasium's own wrappers in any order. Their twins for vector envs are in
`ors_gym.wrappers.vector`. `NativeSpaces` gives a Gymnasium environment that is served
as an ORS environment its own spaces back. `PlainInfo` makes infos fit into a dataset's
columns.
"""

from ors_gym.wrappers import vector
from ors_gym.wrappers._discrete_tools import DiscreteTools
from ors_gym.wrappers._native_spaces import NativeSpaces
from ors_gym.wrappers._parsed_text import ParsedText
from ors_gym.wrappers._plain_info import PlainInfo

__all__ = ["DiscreteTools", "NativeSpaces", "ParsedText", "PlainInfo", "vector"]
