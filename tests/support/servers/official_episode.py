"""Play an episode with openreward 0.1.167's own client; a child process runs this.

It reads what to play from standard input, and prints what it saw, both as JSON. Three
of its packages import three vendors' model clients, so empty ones take their places.
"""

import importlib
import importlib.machinery
import json
import sys
import types
from typing import Any


def _import_client() -> Any:
    found = importlib.machinery.PathFinder.find_spec("openreward")
    assert found is not None
    for name in ("", ".api.rollouts", ".api.rollouts.serializers"):
        package = types.ModuleType(f"openreward{name}")
        places = found.submodule_search_locations or ()
        package.__path__ = [place + name.replace(".", "/") for place in places]
        sys.modules[f"openreward{name}"] = package
    return importlib.import_module("openreward.api.environments.client")


def _play(url: str, key: str, name: str, **options: Any) -> dict[str, Any]:
    with _import_client().EnvironmentsAPI(url, key, api_base_url=url) as api:
        environment = api.get(name, variant=options.pop("variant", None))
        seen = {
            "splits": environment.list_splits(),
            "num_tasks": environment.num_tasks("train"),
            "task": dict(environment.get_task("train", 3).task_spec),
            "tools": [tool.name for tool in environment.list_tools()],
            "required_secrets": environment.list_required_secrets(),
            "difficulty": environment.get_task_difficulty()[0].avg_reward,
        }
        secrets = {name: tuple(pair) for name, pair in options.pop("secrets").items()}
        with environment.session(
            split="train", index=3, secrets=secrets, **options
        ) as session:
            seen["prompt"] = session.get_prompt()[0].text
            seen["session_tools"] = [tool.name for tool in session.list_tools()]
            result = session.call_tool("submit", {"answer": "6"})
            seen["result"] = [result.blocks[0].text, result.reward, result.finished]
    return seen


if __name__ == "__main__":
    print(json.dumps(_play(**json.load(sys.stdin))))  # noqa: T201
