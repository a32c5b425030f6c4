"""The operations of the protocol, each written once, as a generator.

A driver runs them: it does the exchanges and the waiting. See
`ors_gym.protocol._exchange`.
"""

from ors_gym.protocol._operations.calls import call_tool, resume_call, score_group
from ors_gym.protocol._operations.metadata import (
    connect,
    get_task,
    get_task_difficulty,
    get_task_range,
    list_required_secrets,
    list_splits,
    list_tasks,
    list_tools,
    locate,
    num_tasks,
    resolve_environment,
)
from ors_gym.protocol._operations.session_ids import create_session
from ors_gym.protocol._operations.sessions import (
    delete_session,
    get_messages,
    list_task_tools,
    open_session,
    ping,
    start_episode,
)

__all__ = [
    "call_tool",
    "connect",
    "create_session",
    "delete_session",
    "get_messages",
    "get_task",
    "get_task_difficulty",
    "get_task_range",
    "list_required_secrets",
    "list_splits",
    "list_task_tools",
    "list_tasks",
    "list_tools",
    "locate",
    "num_tasks",
    "open_session",
    "ping",
    "resolve_environment",
    "resume_call",
    "score_group",
    "start_episode",
]
