"""The arguments of an env: declared once, shown in signatures, checked, kept secret."""

import inspect
import pydoc
import re
from typing import Any

import pytest

import ors_gym
from ors_gym.env import AsyncORSEnv, AsyncTaskEnv, ORSEnv, TaskEnv
from ors_gym.env._settings import (
    EnvSettings,
    find_server,
    merge_client_arguments,
    without_secrets,
)
from ors_gym.vector import ORSVectorEnv

pytestmark = pytest.mark.unit

NOWHERE = "http://127.0.0.1:1"
OF_TASK_ENVS = {
    *("env_name", "base_url", "client", "split", "observation_mode", "action_mode"),
    *("plain_text", "max_episode_steps", "call_timeout", "setup_timeout"),
    *("terminal_tool_as", "tool_schemas"),
    *("invalid_action_reward", "on_tool_error", "on_error", "render_mode", "api_key"),
    *("secrets", "headers", "create_options", "session_options", "client_options"),
    *("toolset", "env_overrides"),
}
OF_ENVS = OF_TASK_ENVS | {
    *("tasks", "task_order", "task_offset", "task_stride", "prefetch")
}
OF_VECTOR_ENVS = OF_ENVS | {
    *("num_envs", "autoreset_mode", "open_ahead", "max_failed_starts")
}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (TaskEnv, OF_TASK_ENVS),
        (AsyncTaskEnv, OF_TASK_ENVS),
        (ORSEnv, OF_ENVS),
        (AsyncORSEnv, OF_ENVS),
        (ORSVectorEnv, OF_VECTOR_ENVS),
    ],
)
def test_signatures_show_every_argument_and_default(kind, names):
    shown = inspect.signature(kind).parameters
    assert (set(shown), shown["call_timeout"].default) == (names, 600.0)
    assert shown["env_name"].default is inspect.Parameter.empty
    assert shown["secrets"].kind is inspect.Parameter.KEYWORD_ONLY
    on_error = "truncate" if kind is ORSVectorEnv else "raise"
    assert shown["on_error"].default == on_error
    described = pydoc.plain(pydoc.render_doc(kind))
    assert re.search(r"call_timeout: (float|'float') = 600\.0", described)


@pytest.mark.parametrize("name", sorted(OF_ENVS - {"client"}))
def test_the_docstring_of_the_env_has_every_argument(name):
    # From Python 3.13 on a docstring is stored without its indentation.
    written = inspect.getdoc(ORSEnv) or ""
    assert f"\n    {name}: " in written.split("Raises:")[0]


def test_a_subclass_has_a_signature_of_its_own():
    class Own(ORSEnv):
        def __init__(self, level: int) -> None:
            super().__init__("guess", max_episode_steps=level)

    assert set(inspect.signature(Own).parameters) == {"level"}


@pytest.mark.parametrize(
    "kind", [TaskEnv, AsyncTaskEnv, ORSEnv, AsyncORSEnv, ORSVectorEnv]
)
def test_an_argument_that_there_is_not(kind):
    said = f"{kind.__name__} got an unexpected keyword argument 'spilt'"
    with pytest.raises(TypeError, match=said):
        kind("guess", NOWHERE, spilt="train")


def test_a_task_env_takes_nothing_that_chooses_tasks():
    for name in OF_ENVS - OF_TASK_ENVS:
        with pytest.raises(TypeError, match=name):
            TaskEnv("guess", NOWHERE, **{name: None})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"env_name": None}, r"env_name=.*ors-gym list"),
        ({"env_name": 3}, "env_name is the name .* not 3"),
        ({"observation_mode": "pixels"}, "observation_mode is 'pixels'"),
        ({"action_mode": "json"}, "action_mode is 'json'"),
        ({"plain_text": "ask"}, "plain_text is 'ask'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; it must be 'raise' or"),
        ({"on_tool_error": "ignore"}, "on_tool_error is 'ignore'"),
        ({"on_tool_error": {"submit": "ignore"}}, "or a table of these by tool"),
        ({"on_tool_error": {1: "raise"}}, "or a table of these by tool"),
        ({"render_mode": "png"}, "render_mode is 'png'"),
        ({"setup_timeout": "1"}, "setup_timeout is '1'; it must be a number of"),
        ({"call_timeout": None}, "call_timeout is None; it must be a number of"),
        ({"call_timeout": True}, "call_timeout is True; it must be a number of"),
        ({"call_timeout": 0}, "call_timeout must be more than 0 seconds"),
        ({"call_timeout": float("nan")}, "call_timeout must be more than 0 seconds"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
        ({"invalid_action_reward": float("nan")}, "invalid_action_reward"),
        ({"prefetch": "yes"}, "prefetch is 'yes'; it must be True or False"),
        (
            {"headers": {"X-A": "1"}, "client_options": {"headers": {"X-B": "2"}}},
            "headers= is given twice",
        ),
    ],
)
def test_arguments_that_cannot_be_right(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ors_gym.InvalidRequestError, match=said):
        ORSEnv(**{"env_name": "guess", "base_url": NOWHERE, **arguments})


def test_nothing_secret_is_shown_or_kept():
    key = "hunter22"
    secrets: dict[str, Any] = {
        "api_key": key,
        "secrets": {"TOKEN": key},
        "headers": {"Authorization": key, "X-Deployment": "a/b"},
        "client_options": {"headers": {"Cookie": key}, "timeout": 3.0},
    }
    assert key not in repr(EnvSettings(env_name="math", **secrets))
    assert without_secrets({"env_name": "math", **secrets}) == {
        "env_name": "math",
        "headers": {"X-Deployment": "a/b"},
        "client_options": {"headers": {}, "timeout": 3.0},
    }


@pytest.mark.parametrize("name", ["api_key", "headers"])
def test_client_options_may_hold_what_has_a_name_of_its_own(name):
    given = {"api_key": "hunter22", "headers": {"X-A": "1"}}[name]
    merged = merge_client_arguments({"client_options": {name: given, "timeout": 3.0}})
    assert merged == {name: given, "timeout": 3.0}
    settings = EnvSettings(env_name="math", client_options={name: given})
    assert settings.client_arguments() == {name: given}


def test_which_server_is_meant(monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", "http://named:1")
    assert find_server("http://given:2") == "http://given:2"
    assert find_server(None) == "http://named:1"
