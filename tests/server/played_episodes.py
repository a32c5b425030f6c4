"""Episodes over HTTP, as the tests of the bundled environments play them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ors_gym.client import ORSClient
from ors_gym.types import ToolCall, ToolSpec

MOST_STEPS = 200


@dataclasses.dataclass
class Played:
    texts: list[str]
    rewards: list[float]
    finished: bool
    tools: list[ToolSpec]
    blocks: list[Any]


def text_of(blocks: Sequence[Any]) -> str:
    """Join the texts of blocks, as an env does."""
    return "\n\n".join(block["text"] for block in blocks if block["type"] == "text")


def play(
    client: ORSClient,
    name: str,
    split: str,
    index: int,
    player: Callable[[str, Sequence[ToolSpec]], ToolCall],
) -> Played:
    """Play an episode to its end, which must come within a bound."""
    with client.session(name, split=split, index=index) as session:
        prompt = session.get_prompt()
        played = Played([text_of(prompt)], [], False, session.list_tools(), [*prompt])
        while not played.finished and len(played.rewards) < MOST_STEPS:
            call = player(played.texts[-1], played.tools)
            result = session.call_tool(call["tool"], call["input"])
            played.texts.append(text_of(result["blocks"]))
            played.blocks += result["blocks"]
            assert result["reward"] is not None
            played.rewards.append(result["reward"])
            played.finished = result["finished"]
    return played
