"""An env without a server, that says what a script tells it to."""

from typing import Any

import gymnasium

from ors_gym.formats import InvalidAction, parse_action
from ors_gym.rollout import Episode, run_episode
from ors_gym.spaces import ToolCallSpace
from ors_gym.types import ToolSpec

ANSWER = {"answer": {"type": "string"}}
SCHEMA = {"type": "object", "properties": ANSWER, "required": ["answer"]}
TOOLS: list[ToolSpec] = [
    {"name": "submit", "description": "", "input_schema": SCHEMA},
    {"name": "look", "description": "", "input_schema": None},
]


class ScriptedEnv(gymnasium.Env[Any, Any]):
    """Takes an entry of the script per step: an exception to raise, or fields of info.

    Beside these an entry may have ``reward``, ``finished`` and ``truncated``.
    """

    def __init__(self, *script: dict[str, Any] | Exception) -> None:
        self.script = list(script)
        self.tools = TOOLS
        self.action_space = ToolCallSpace(TOOLS)
        self.observation_space = gymnasium.spaces.Text(1000)
        self.taken: list[Any] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        info = {"task_index": 3, "split": "train"}
        return "prompt", info | {"blocks": [{"type": "text", "text": "prompt"}]}

    def step(self, action: Any):
        self.taken.append(action)
        said = self.script.pop(0)
        if isinstance(said, Exception):
            raise said
        call = parse_action(action, tools=TOOLS)
        if isinstance(call, InvalidAction):
            said = {"error": call.message, "error_kind": "invalid_action"} | said
            tool, blocks = "", []
        else:
            tool, blocks = call["tool"], [{"type": "text", "text": "reply"}]
        said = {"tool": tool, "blocks": blocks, "reward": 0.0} | said
        reward = said.pop("reward")
        ends = said.pop("finished", False), said.pop("truncated", False)
        return "reply", reward, *ends, said


def call(tool: str, **given: Any) -> dict[str, Any]:
    return {"tool": tool, "input": given}


def submit(answer: str = "4") -> dict[str, Any]:
    return call("submit", answer=answer)


def chat_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a call as OpenAI's API has it."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


FINISH: dict[str, Any] = {"reward": 1.0, "finished": True}
"""An entry of a script: the server finishes the episode."""


def play(env: gymnasium.Env[Any, Any], *answers: Any, **rules: Any) -> Episode:
    queue = list(answers)
    return run_episode(env, lambda episode: queue.pop(0), **rules)
