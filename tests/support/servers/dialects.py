"""What each server version speaks, as in docs/wire.md: one row a field."""

import dataclasses
from typing import Final, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerDialect:
    """The facts about one server version; the defaults are the newest one's."""

    # how it answers; "none": the client brings an id
    create_session: Literal["stream", "json", "none"] = "stream"
    secrets: Literal["header", "body", "required", "none"] = "header"  # where they go
    # What the body of /create may hold.
    properties: frozenset[str] = frozenset({"env_name", "task_spec", "split", "index"})
    required: frozenset[str] = frozenset()  # what it must hold
    index: bool = True  # there are num_tasks, task, and split and index in /create
    task_range: bool = True  # there are task_range and task_tools
    split_objects: bool = True  # splits are objects rather than strings
    named: frozenset[str] = frozenset({"tasks"})  # answers that repeat `env_name`
    checks_split: bool = True  # /tasks refuses an unknown split
    checks_environment: bool = True  # /create refuses an unknown environment
    redirects: bool = True  # an unknown environment in a path leads to the default one
    delete_unknown: int = 200  # the status of /delete for an unknown session
    reason: bool = False  # a refused call says why in one word
    refuses_after_end: bool = False  # a call after `finished` is refused
    setup_cause: bool = True  # a failed set-up's message is shown
    constructs_at_once: bool = False  # the constructor runs inside /create
    waits_for_tools: bool = True  # task_tools waits for set-up
    blocks: bool = True  # a tool that is no coroutine blocks everybody
    vast_tasks: int = 400  # the status of /tasks where tasks cannot be listed
    version: bool = True  # there is /version


_SPEC: Final = frozenset({"env_name", "task_spec"})
_EARLY: Final = ServerDialect(
    create_session="json",
    secrets="required",
    properties=_SPEC | {"secrets"},
    required=_SPEC | {"secrets"},
    index=False,
    task_range=False,
    checks_environment=False,
    delete_unknown=404,
    setup_cause=False,
    version=False,
)
_MIDDLE: Final = ServerDialect()

DIALECTS: Final[dict[str, ServerDialect]] = {
    "ors-sdk-0.1.0": dataclasses.replace(
        _MIDDLE,
        secrets="body",
        properties=_MIDDLE.properties | {"secrets"},
        version=False,
    ),
    "openreward-0.1.167": dataclasses.replace(
        _MIDDLE,
        properties=_MIDDLE.properties | {"toolset_name"},
        named=frozenset({"tasks", "task", "task_range"}),
        reason=True,
        refuses_after_end=True,
        constructs_at_once=True,
        waits_for_tools=False,
        blocks=False,
    ),
    "openreward-0.1.80": _MIDDLE,
    "openreward-0.1.50": dataclasses.replace(
        _MIDDLE,
        create_session="json",
        secrets="body",
        properties=_MIDDLE.properties | {"secrets"},
        task_range=False,
        delete_unknown=404,
        vast_tasks=500,
        version=False,
    ),
    "openreward-0.1.22": _EARLY,
    "openreward-0.1.9": dataclasses.replace(_EARLY, split_objects=False),
    "openreward-0.1.0": dataclasses.replace(
        _EARLY,
        create_session="none",
        secrets="none",
        properties=_SPEC,
        required=_SPEC,
        split_objects=False,
        named=frozenset(),
        checks_split=False,
        redirects=False,
    ),
}
"""By the names of `tests.support.servers.venvs.SDKS`."""
