"""Adapters for training and evaluation frameworks, one module each.

The rest of the package imports none of them. Each needs only the extra of its own name:
``pip install "ors-gym[trl]"`` for `ors_gym.integrations.trl`. The extra of
`ors_gym.integrations.opentelemetry` is ``otel``. Below is what several of
them share: which server, split and tasks are meant, which arguments are secret, and how
often an episode is played where outages end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import choose_split
from ors_gym.protocol._redaction import SECRET_ARGUMENTS
from ors_gym.rollout._clients import borrow_blocking, connect

# Makes the client where more than an address is needed, such as a key.
ClientFactory: TypeAlias = Callable[[], AsyncORSClient]

# Arguments of an episode that must not get into logs, files or pickles.
EPISODE_SECRETS: Final = SECRET_ARGUMENTS | {"client_options"}

# How often an episode is played at most, unless the option ``attempts`` says otherwise.
ATTEMPTS: Final = 3


def make_client(
    base_url: str | None, client_factory: ClientFactory | None
) -> AsyncORSClient:
    """Make the client of an episode."""
    return connect(base_url) if client_factory is None else client_factory()


def choose_indexes(
    env_name: str,
    base_url: str | None,
    client_factory: ClientFactory | None,
    split: str | None,
    tasks: Iterable[int] | None,
) -> tuple[str, Iterable[int]]:
    """Return the chosen split, and the given indexes or else all of that split.

    The server is asked for its splits in any case, so a wrong ``split`` is refused.

    Raises:
        UnknownTaskError: If there is no such split.
    """
    asked = base_url if client_factory is None else client_factory()
    with borrow_blocking(asked) as client:
        chosen = choose_split(client.list_splits(env_name), split)
        if tasks is None:
            tasks = range(client.num_tasks(env_name, chosen))
    return chosen, tasks
