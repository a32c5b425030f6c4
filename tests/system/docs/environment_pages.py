"""The page of each bundled environment, written from its class and the registry.

``python -m tests.system.docs.environment_pages`` writes ``docs/environments/`` anew.
"""

import importlib
import inspect
import math
import re
import sys
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
from ors.types import ToolSpec
from PIL import Image

from ors_gym.registration import BUNDLED_REWARDS
from ors_gym.server import BUNDLED
from ors_gym.server._reference_players import REFERENCE_PLAYERS
from tests.system.docs.pages import ROOT

FOLDER: Final = ROOT / "docs" / "environments"
_SECTION: Final = re.compile(r"^([A-Z][a-z ]+):\n((?: {4}.*\n|\n)+)", re.MULTILINE)
_PAGE: Final = """<!-- Written by `python -m tests.system.docs.environment_pages`. -->
# {title}

![An episode that the reference player plays]({name}.png)

| | |
|---|---|
| make | `gym.make("ors_gym:ors/{name}")` |
| action space | `ToolCallSpace`: {tools} |
| observation space | `FreeText`; with `observation_mode="dict"` text and images |
| reward of an episode | {least} to {most} |
| tasks | {splits} |

## Description

{description}

```python
import gymnasium as gym

env = gym.make("ors_gym:ors/{name}")
observation, info = env.reset(seed=0)
print(observation)
action = env.action_space.sample()
observation, reward, terminated, truncated, info = env.step(action)
env.close()
```

## Action space

An action is a call of one tool, `{{"tool": name, "input": {{...}}}}`. A call that the
schema refuses is an observation that says so, with the reward `invalid_action_reward`
(0.0) and `info["error_kind"] == "invalid_action"`.

| tool | what it does | input |
|---|---|---|
{calls}

## Observation space

Text: the prompt after `reset`, then the reply of each call.{images}

## Rewards

{Rewards}

## Starting state

{Starting state} `reset(seed=...)` chooses the task: the same seed plays the same one.

## Episode end

{Episode end} It is truncated only where you say so, with `max_episode_steps`.

## Arguments

The environment has none of its own: a task says everything. `gym.make` takes those of
[`ORSEnv`](../reference/environments.md), such as `split="test"`, `tasks=range(10)`,
`task_order="shuffle"`, `action_mode="text"` and `render_mode="rgb_array"`.

## Version history

{Version history}

The id carries no version, unlike `CartPole-v1`: it names an environment of a server.
With `ORS_BASE_URL` set, `ors/{name}` is what that server has under the name, and only
the server knows its version. The history above is that of the bundled one. A change of
rewards or tasks gets a line there, and a new name if old results would not compare.
"""


def write_page(name: str) -> str:
    kind = _load(name)
    description, sections = _read(inspect.getdoc(kind) or "")
    tools = kind.list_tools().tools
    if name == "sql":
        tools += [kind.update_spec()]
    least, most = BUNDLED_REWARDS[name]
    title = gym.spec(f"ors/{name}").name.capitalize()
    values = {
        "title": "SQL" if name == "sql" else title,
        "name": name,
        "tools": ", ".join(f"`{tool.name}`" for tool in tools),
        "least": "no bound" if math.isinf(least) else f"{least:g}",
        "most": f"{most:g}",
        "splits": ", ".join(f"{n} in `{s}`" for s, n in kind.split_sizes.items()),
        "description": description,
        "calls": "\n".join(_row(tool) for tool in tools),
        "images": " The map is also a picture." if name == "maze" else "",
        **sections,
    }
    return _PAGE.format_map(values)


def draw_picture(name: str) -> None:
    """Save the last picture of an episode that the reference player plays."""
    env: Any = gym.make(f"ors/{name}", render_mode="rgb_array")
    player = REFERENCE_PLAYERS[name]()
    observation, _ = env.reset(options={"task_index": 0})
    over = False
    while not over:
        action = player(observation, env.unwrapped.tools)
        observation, _, over, *_ = env.step(action)
    image = Image.fromarray(env.render())
    image.quantize(64).save(FOLDER / f"{name}.png", optimize=True)
    env.close()


def _load(name: str) -> Any:
    module, _, kind = BUNDLED[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def _read(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into what stands before its sections, and these."""
    docstring += "\n"
    found = {m[1]: inspect.cleandoc(m[2]) for m in _SECTION.finditer(docstring)}
    before = _SECTION.split(docstring, maxsplit=1)[0].strip()
    return before.replace("``", "`"), found


def _row(tool: ToolSpec) -> str:
    schema: Any = tool.input_schema or {}
    parts = []
    for key, value in schema.get("properties", {}).items():
        kind = value.get("type", "")
        if "enum" in value:
            kind = " or ".join(f"`{one}`" for one in value["enum"])
        if "minimum" in value:
            kind += f" from {value['minimum']} to {value['maximum']}"
        parts.append(f"`{key}`: {kind}. {value['description']}")
    return f"| `{tool.name}` | {tool.description} | {' '.join(parts) or 'none'} |"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in BUNDLED:
        (FOLDER / f"{name}.md").write_text(write_page(name), encoding="utf-8")
        draw_picture(name)
        sys.stdout.write(f"{Path('docs/environments') / name}.md\n")


if __name__ == "__main__":
    main()
