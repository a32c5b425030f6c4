"""Which tasks of a split a dataset lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import choose_split
from ors_gym.rollout._clients import borrow_blocking

__all__ = ["choose_indexes"]


def choose_indexes(
    env_name: str,
    base_url: str | None,
    client_factory: Callable[[], AsyncORSClient] | None,
    split: str | None,
    tasks: Iterable[int] | None,
) -> tuple[str, Iterable[int]]:
    """Ask a server which split and which tasks are meant.

    Args:
        env_name: The environment's name on the server.
        base_url: The server's address, as for `ORSEnv`.
        client_factory: Makes the client, where more than an address is needed.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Indexes; None for the whole split.

    Returns:
        The split's name, and the indexes.

    Raises:
        UnknownTaskError: If there is no such split.
    """
    asked = base_url if client_factory is None else client_factory()
    with borrow_blocking(asked) as client:
        chosen = choose_split(client.list_splits(env_name), split)
        if tasks is None:
            tasks = range(client.num_tasks(env_name, chosen))
    return chosen, tasks
