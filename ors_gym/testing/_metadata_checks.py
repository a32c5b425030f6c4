"""Checks that open no session: what a server says of itself."""

from __future__ import annotations

import itertools
import json
from typing import Final

from ors_gym.errors import ORSError, SchemaError
from ors_gym.protocol._dialect import SecretsChannel
from ors_gym.protocol._requests import encode, environment_head, plain_head
from ors_gym.spaces import ToolCallSpace
from ors_gym.testing._subject import (
    Subject,
    Verdict,
    ask,
    failed,
    passed,
    skipped,
    warned,
)
from ors_gym.types import ToolSpec

__all__ = ["METADATA_CHECKS", "judge_tools"]

_NOBODY: Final = "no-such-environment-of-this-server"
_COMPARED_TASKS: Final = 50
_OPTIONAL: Final = {
    "num_tasks": "tasks are only listed whole, which a large set cannot afford",
    "create_by_index": "each episode must send its task, answer and all",
    "task_tools": "tools that depend on the task cannot be listed",
}


def check_health(subject: Subject) -> Verdict:
    """GET /health."""
    reply = ask(subject.client, plain_head("GET", "/health"))
    if reply.status == 200:
        return passed("GET /health says 200")
    return warned(
        f"GET /health: {reply}",
        "answer 200 when the server can take sessions; orchestrators ask for it",
    )


def check_endpoints(subject: Subject) -> Verdict:
    """Which endpoints of the standard are missing."""
    spoken = subject.dialect
    missing = [
        f"{name} ({why})"
        for name, why in _OPTIONAL.items()
        if getattr(spoken, name) is False
    ]
    if missing:
        return warned(f"missing: {'; '.join(missing)}", "update the server's SDK")
    return passed("tasks can be counted and played by index; sessions list tools")


def check_secrets(subject: Subject) -> Verdict:
    """Where the secrets of a session go."""
    channel = subject.dialect.secrets
    if channel is SecretsChannel.NONE:
        return warned(
            "sessions cannot be given secrets",
            "update the server's SDK if environments need keys of their users",
        )
    if channel is SecretsChannel.REQUIRED_BODY:
        return warned(
            "/create is refused without `secrets`, which newer clients do not send",
            "make the field optional, or update the server's SDK",
        )
    place = "X-Secrets header" if channel is SecretsChannel.HEADER else "body"
    return passed(f"in the {place} of /create")


def check_unknown_environment(subject: Subject) -> Verdict:
    """An environment that is not there."""
    reply = ask(subject.client, environment_head("GET", _NOBODY, "splits"))
    if reply.status == 404:
        return passed("a path of an unknown environment is 404")
    return warned(
        f"a path of an unknown environment is {reply.status}, not 404",
        "answer 404: a client that follows plays another environment unawares",
    )


def check_splits(subject: Subject) -> Verdict:
    """The splits and their types."""
    names = [split["name"] for split in subject.splits]
    if not names:
        return failed("there is no split", "return at least one from list_splits")
    listed = ", ".join(f"{one['name']} ({one['type']})" for one in subject.splits)
    head = environment_head("GET", subject.environment, "splits")
    raw = ask(subject.client, head).value
    if isinstance(raw, list) and any(isinstance(split, str) for split in raw):
        return warned(
            f"{listed}; the types are guessed, as the server gives names only",
            'give objects: {"name": ..., "type": "train" | "validation" | "test"}',
        )
    if len(names) > 1 and "train" not in names:
        return warned(
            f"{listed}; none is called train",
            "name one train, or tell users which split to pass",
        )
    return passed(listed)


def check_tasks(subject: Subject) -> Verdict:
    """The tasks of each split: how many, and whether one can be had."""
    client, name = subject.client, subject.environment
    counts = {
        one["name"]: client.num_tasks(name, one["name"]) for one in subject.splits
    }
    listed = ", ".join(f"{split}: {count}" for split, count in counts.items())
    empty = [split for split, count in counts.items() if not count]
    if empty:
        return warned(
            f"{listed}; without a task: {', '.join(empty)}",
            "leave out splits that have no tasks",
        )
    for split, count in counts.items():
        for index in {0, count - 1}:
            client.get_task(name, split, index)
    return passed(listed)


def check_unknown_task(subject: Subject) -> Verdict:
    """A task past the end of its split, and a split that is not there."""
    if subject.dialect.num_tasks is False:
        return skipped("the server gives no task by its index")
    count = subject.client.num_tasks(subject.environment, subject.split)
    head = environment_head("POST", subject.environment, "task")
    statuses = {}
    for split, index in ((subject.split, count), ("no-such-split", 0)):
        body = encode({"split": split, "index": index}, "the request")
        statuses[f"{split}[{index}]"] = ask(subject.client, head, body).status
    listed = ", ".join(f"{task}: {status}" for task, status in statuses.items())
    if all(400 <= status < 500 for status in statuses.values()):
        return passed(listed)
    return warned(
        f"{listed}; a task that is not there should be 4xx",
        "answer 400 or 404; raise IndexError or ValueError in get_task",
    )


def check_tasks_in_two_splits(subject: Subject) -> Verdict:
    """A task of training that is also tested."""
    found = {}
    for split in subject.splits:
        try:
            tasks = subject.client.get_task_range(
                subject.environment, split["name"], 0, _COMPARED_TASKS
            )
        except ORSError as error:
            return skipped(f"the tasks of {split['name']} cannot be had: {error}")
        found[split["name"]] = {json.dumps(task, sort_keys=True) for task in tasks}
    if len(found) < 2:
        return skipped("there is only one split")
    for first, second in itertools.combinations(found, 2):
        common = found[first] & found[second]
        if common:
            return warned(
                f"{len(common)} of the first {_COMPARED_TASKS} tasks are in {first!r} "
                f"and in {second!r}",
                "keep splits apart, or a test measures what was trained on",
            )
    return passed(f"the first {_COMPARED_TASKS} tasks of each split differ")


def check_tool_schemas(subject: Subject) -> Verdict:
    """The schemas of the tools that every session has."""
    return judge_tools(subject.client.list_tools(subject.environment))


def judge_tools(tools: list[ToolSpec]) -> Verdict:
    """Judge a list of tools.

    Args:
        tools: As the server lists them.

    Returns:
        A failure if one cannot be sampled, a warning if one is hard to use.
    """
    if not tools:
        return warned("no tool", "mark the methods that an agent may call with @tool")
    for tool in tools:
        try:
            call = ToolCallSpace([tool], seed=0).sample()
            fits = call in ToolCallSpace([tool])
        except SchemaError as error:
            return failed(str(error), "mend the input_schema of that tool")
        if not fits:
            return failed(
                f"tool {tool['name']!r}: no input satisfies its schema",
                "mend the input_schema of that tool",
            )
    names = [tool["name"] for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return warned(f"listed twice: {', '.join(twice)}", "give each a name")
    silent = [tool["name"] for tool in tools if not tool["description"].strip()]
    if silent:
        return warned(
            f"without a description: {', '.join(silent)}",
            "write a docstring: it is all that a model knows of the tool",
        )
    return passed(f"{len(tools)}, each described, and each schema can be sampled")


METADATA_CHECKS: Final = (
    ("health", check_health),
    ("endpoints", check_endpoints),
    ("secrets", check_secrets),
    ("unknown environment", check_unknown_environment),
    ("splits", check_splits),
    ("tasks", check_tasks),
    ("unknown task", check_unknown_task),
    ("tasks in two splits", check_tasks_in_two_splits),
    ("tool schemas", check_tool_schemas),
)
