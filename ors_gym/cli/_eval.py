"""``eval``: a policy on many tasks."""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import shlex
from typing import Any, Final

from ors_gym.agents import AgentProgram, CommandPolicy, read_programs
from ors_gym.cli._common import (
    add_command,
    add_credential_arguments,
    add_environment_arguments,
    add_json_flag,
    add_tool_schemas_argument,
    open_client,
    open_environment,
    read_range,
    read_reward_range,
    read_variable,
    require_module,
    say_aside,
    say_json,
    summarize,
)
from ors_gym.display._terminal import say
from ors_gym.errors import InvalidRequestError, MissingExtraError, ORSError
from ors_gym.evaluation import evaluate
from ors_gym.evaluation._report import find_place
from ors_gym.protocol._redaction import is_secret_name
from ors_gym.rollout import Policy, random_policy, reference_policy
from ors_gym.rollout._chat_policy import ChatPolicy
from ors_gym.rollout._usage import LIBRARY

_LOGGERS: Final = {
    "wandb": "ors_gym.integrations.wandb:WandbLogger",
    "mlflow": "ors_gym.integrations.mlflow:MlflowLogger",
    "openreward": "ors_gym.integrations.openreward:OpenRewardLogger",
}


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "eval",
        "evaluate a policy on many tasks",
        "math --policy reference --tasks 100 --output run.jsonl",
    )
    add_environment_arguments(parser)
    _add_policy_arguments(parser)
    _add_extent_arguments(parser)
    _add_limit_arguments(parser)
    _add_result_arguments(parser)
    add_tool_schemas_argument(parser)
    add_credential_arguments(parser)
    add_json_flag(parser)
    parser.set_defaults(run=_run)


def _add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    policies = parser.add_mutually_exclusive_group()
    policies.add_argument(
        "--policy",
        default="random",
        help="random (the default), reference, openai:MODEL, or module:function",
    )
    policies.add_argument(
        "--agent",
        metavar="PROGRAM",
        help="a program plays over MCP: claude, codex, gemini, opencode, or a command "
        "such as 'codex exec --model gpt-5.1'",
    )
    parser.add_argument(
        "--agent-env",
        type=_read_agent_variable,
        action="append",
        default=[],
        metavar="NAME|NAME=VALUE",
        help="a variable that the agent is given: yours of that name, or a value",
    )
    parser.add_argument(
        "--agent-programs",
        type=_read_agent_programs,
        default={},
        metavar="FILE",
        help="programs that --agent knows by name too, in the form of "
        "ors_gym/agents/programs.toml",
    )
    parser.add_argument(
        "--model-url",
        metavar="URL",
        help="the model's API, such as http://host:8000/v1; default: OPENAI_BASE_URL",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the policy; default: 0",
    )
    parser.add_argument(
        "--terminal-tool-as",
        choices=("both", "tool", "text"),
        default="both",
        help="how a model reaches the tool that ends the episode; default: both",
    )


def _add_extent_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how much is played, and where."""
    parser.add_argument(
        "--tasks",
        type=read_range,
        metavar="N|a:b",
        help="the first N, or from a up to b; default: the whole split",
    )
    parser.add_argument(
        "--episodes-per-task", type=int, default=1, metavar="N", help="default: 1"
    )
    parser.add_argument(
        "--max-turns",
        type=int,
        default=100,
        metavar="N",
        help="of an episode; default: 100",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        metavar="SECONDS",
        help="of an episode, set-up included; default: none",
    )
    parser.add_argument(
        "--max-concurrent",
        type=int,
        default=8,
        metavar="N",
        help="episodes at the same time; default: 8",
    )
    parser.add_argument(
        "--min-concurrent",
        type=int,
        default=1,
        metavar="N",
        help="the least of these while the server is busy; default: 1",
    )
    parser.add_argument(
        "--adapt-to-latency",
        action="store_true",
        help="play fewer at the same time while requests wait at the server",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who plays: this process (the default) or a Ray cluster (RAY_ADDRESS)",
    )
    parser.add_argument(
        "--actors",
        type=int,
        metavar="N",
        help="processes of the cluster; default: one per CPU",
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the whole run may use."""
    for name, kind, metavar, meaning in (
        ("--max-cost", float, "N", "what the run may cost, in the unit of the prices"),
        ("--max-tokens", int, "N", "tokens that its models may read and write"),
        ("--max-seconds", float, "N", "seconds that this command may take"),
        ("--max-outages", int, "N", "episodes that may end without an outcome"),
        (
            "--prices",
            _read_prices,
            "FILE|genai-prices",
            'such as {"MODEL": {"input": 1.25, "output": 10}}, per million tokens',
        ),
    ):
        parser.add_argument(name, type=kind, metavar=metavar, help=meaning)


def _add_result_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reward-range",
        type=read_reward_range,
        metavar="a:b",
        help="the least and the greatest reward of an episode, if you know them",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="JSON lines; the same command again plays only what is missing",
    )
    parser.add_argument(
        "--log-to",
        action="append",
        default=[],
        metavar="LOGGER",
        help=f"{', '.join(_LOGGERS)}, or module:function; may be given several times",
    )


def _run(options: argparse.Namespace) -> int:
    policy = _find_policy(options)
    loggers = [_make_logger(name) for name in options.log_to]
    with (
        open_environment(options.environment, options.url) as (base_url, name),
        open_client(options, base_url) as client,
    ):
        found = evaluate(
            client,
            name,
            options.tasks,
            policy,
            max_concurrent=options.max_concurrent,
            min_concurrent=options.min_concurrent,
            adapt_to_latency=options.adapt_to_latency,
            episodes_per_task=options.episodes_per_task,
            max_turns=options.max_turns,
            deadline=options.deadline,
            split=options.split,
            seed=options.seed,
            secrets=dict(options.secret),
            reward_range=options.reward_range,
            tool_schemas=options.tool_schemas,
            terminal_tool_as=options.terminal_tool_as,
            output=options.output,
            max_cost=options.max_cost,
            max_tokens=options.max_tokens,
            max_seconds=options.max_seconds,
            max_outages=options.max_outages,
            prices=options.prices,
            policy_name=None if options.agent else options.policy,
            log_to=loggers,
            engine=options.engine,
            actors=options.actors,
            progress=False if options.json else None,
        )
    if options.json:
        say_json(summarize(found))
    else:
        say(found)
    if options.output is not None:
        path = pathlib.Path(options.output).absolute()
        page = shlex.quote(str(pathlib.Path(options.output).with_suffix(".html")))
        say_aside(
            f"wrote {path}\nto see its episodes: "
            f"ors-gym report {shlex.quote(options.output)} --html {page}"
        )
    # A policy that never made a call was not evaluated.
    called = any(
        episode.unreadable_text is None and not episode.gave_up_at_once
        for episode in found.episodes
    )
    return 0 if found.outcomes and called and not found.stopped else 1


def _find_policy(options: argparse.Namespace) -> Policy:
    if options.agent is not None:
        return CommandPolicy(
            options.agent_programs.get(options.agent, options.agent),
            env={name: v for name, v in options.agent_env if v is not None},
            pass_env=[name for name, v in options.agent_env if v is None],
        )
    name: str = options.policy
    if name == "random":
        return random_policy(options.seed)
    if name == "reference":
        return reference_policy()
    module, _, attribute = name.partition(":")
    if module == "openai" and attribute:
        return ChatPolicy(attribute, base_url=options.model_url)
    if not attribute:
        raise InvalidRequestError(
            f"there is no policy {name!r}; pass random, reference, openai:MODEL, "
            "or module:function"
        )
    policy: Policy = load_callable("policy", name)
    return policy


def _read_agent_variable(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals:
        read_variable(name)
        return name, None
    if is_secret_name(name):
        raise argparse.ArgumentTypeError(
            f"other users of this machine could read the value of {name}; write {name} "
            "for the variable of that name"
        )
    return name, value


def _read_prices(text: str) -> Any:
    if text == LIBRARY:
        return text
    try:
        return json.loads(pathlib.Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} holds no prices: {error}") from None


def _read_agent_programs(path: str) -> dict[str, AgentProgram]:
    try:
        return read_programs(path)
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _make_logger(name: str) -> Any:
    known = _LOGGERS.get(name, name)
    if ":" not in known:
        raise InvalidRequestError(
            f"there is no logger {name!r}; pass {', '.join(_LOGGERS)}, or "
            "module:function, which makes an EvaluationLogger"
        )
    make = load_callable("logger", known)
    try:
        return make()
    except ORSError:
        raise
    except Exception as error:
        raise InvalidRequestError(
            f"the logger {name!r} cannot be made: "
            f"{type(error).__name__}: {error}{find_place(error)}"
        ) from error


def load_callable(what: str, reference: str) -> Any:
    """Import ``module:name``, also from the working directory."""
    module, _, attribute = reference.partition(":")
    require_module(reference)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except MissingExtraError:
        raise
    except Exception as error:
        # Whatever the code of the module raises when it is imported.
        raise InvalidRequestError(
            f"the {what} {reference!r} cannot be loaded: "
            f"{type(error).__name__}: {error}{find_place(error)}"
        ) from error
    if not callable(found):
        raise InvalidRequestError(f"the {what} {reference!r} cannot be called")
    return found
