"""Public agent programs play whole episodes, offline, with a scripted model.

Each is in the version that `AGENT_PROGRAMS` says it was tried with.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ors_gym.agents import AGENT_PROGRAMS
from ors_gym.evaluation import Evaluation, evaluate
from ors_gym.rollout import CommandPolicy, Episode, reference_policy
from tests.rollout.chat_server import ChatServer, running_chat_server
from tests.rollout.model_dialects import CACHED, INPUT, OUTPUT
from tests.support.agent_programs import ensure_agent_programs
from tests.support.virtual_environments import VenvBuildError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KEPT: dict[str, set[str]] = {
    **{name: set() for name in AGENT_PROGRAMS},
    "codex": {
        *("list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource"),
        "request_user_input",
    },
}
"""The tools of its own that a program keeps."""
KEY = "sk-very-secret-key"


@pytest.fixture(scope="session")
def programs() -> Path:
    try:
        return ensure_agent_programs()
    except VenvBuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with running_chat_server() as server:
        yield server


def script_of(environment: str, task: int) -> list[dict[str, Any]]:
    """Return what a model says that plays a task as the reference player does."""
    played = evaluate(None, environment, [task], reference_policy(), progress=False)
    steps = played.episodes[0].steps
    assert steps[-1].finished
    calls = [[f"c{i}", one.tool, json.dumps(one.input)] for i, one in enumerate(steps)]
    return [*({"calls": [call]} for call in calls), {"text": "I am done."}]


def policy_of(
    name: str, model: str, chat: ChatServer, programs: Path, home: Path
) -> CommandPolicy:
    """Return a program as the policy, with a scripted model in place of its own."""
    command, env = list(AGENT_PROGRAMS[name].command), {}
    if name == "claude":
        command += ["--model", model]
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": chat.origin}
    elif name == "codex":
        provider = f'name="x",base_url="{chat.base_url}",env_key="OPENAI_API_KEY"'
        command += ["--model", model, "-c", 'model_provider="scripted"']
        command += ["-c", f"model_providers.scripted={{{provider}}}"]
        env = {"OPENAI_API_KEY": KEY}
    elif name == "gemini":
        command += ["--model", model]
        env = {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": chat.origin}
        # As after a login: another address than Google's is asked for no key otherwise.
        settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        (home / ".gemini").mkdir()
        (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
    else:
        command += ["--model", f"openai/{model}"]
        priced = {"cost": {"input": 1.0, "output": 2.0, "cache_read": 0.5}}
        options = {"baseURL": chat.base_url, "apiKey": KEY}
        openai = {"options": options, "models": {model: priced}}
        config = {"provider": {"openai": openai}}
        env = {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    return CommandPolicy(command, env={"HOME": str(home), "PATH": path, **env})


@pytest.mark.parametrize("environment", ["maze", "sql"])
@pytest.mark.parametrize("name", AGENT_PROGRAMS)
def test_a_program_plays_an_episode_to_its_end(
    name, environment, chat, programs, tmp_path
):
    script = script_of(environment, 2)
    model = chat.script(*script)
    home = tmp_path / "home"
    home.mkdir()
    output = tmp_path / "run.jsonl"
    policy = policy_of(name, model, chat, programs, home)
    found: Evaluation = evaluate(
        None, environment, [2], policy, deadline=120.0, output=output, progress=False
    )
    episode: Episode = found.episodes[0]
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.0), episode
    said = [(one["calls"][0][1], one["calls"][0][2]) for one in script[:-1]]
    assert [(one.tool, json.dumps(one.input)) for one in episode.steps] == said
    extra = episode.extra
    assert (extra["exit_code"], extra["ended"]) == (0, False), extra
    usage = extra["usage"]
    turns = len(script)
    assert usage["input_tokens"] == turns * INPUT
    assert usage["cached_input_tokens"] == turns * CACHED
    assert usage["output_tokens"] == turns * OUTPUT
    assert (usage.get("cost_usd", 0) > 0) is (name in ("claude", "opencode"))
    assert KEY not in output.read_text()
    first = next(one for one in chat.requests(model) if one["tools"])
    asked = first["tools"]
    # It read the prompt once.
    words = json.dumps(episode.prompt[0]["text"].splitlines()[0])[1:-1]
    assert json.dumps(first["body"]).count(words) == 1
    # It had the tools of the environment only, but for what Codex does not give up.
    listed = tuple(tool["name"] for tool in episode.tools)
    assert {tool for tool in asked if not tool.endswith(listed)} == KEPT[name]
