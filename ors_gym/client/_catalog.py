"""What a client's server has: environments, tools, splits and numbers of tasks."""

from __future__ import annotations

from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation
from ors_gym.protocol._wire import Wire
from ors_gym.types import Split, ToolSpec

__all__ = ["Catalog"]


class Catalog:
    """Operations that ask what a server has, each question once per client.

    Every env of a client shares the answers. `ORSClient.run` runs an operation.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def resolve(self, env_name: str) -> Operation[str]:
        """Return the operation that finds the server's spelling of an environment.

        Raises:
            UnknownEnvironmentError: If there is none of that name.
        """
        return operations.resolve_environment(self._wire, env_name)

    def known_tools(self, environment: str) -> list[ToolSpec] | None:
        """Return the tools of an environment; None if nobody asked for them yet."""
        return self._wire.listing(environment).tools

    def tools(self, environment: str) -> Operation[list[ToolSpec]]:
        """Return the operation that lists the tools that every session has."""
        environment = yield from self.resolve(environment)
        listing = self._wire.listing(environment)
        if listing.tools is None:
            listing.tools, _ = yield from operations.list_tools(self._wire, environment)
        return listing.tools

    def splits(self, environment: str) -> Operation[list[Split]]:
        """Return the operation that lists the splits of an environment."""
        environment = yield from self.resolve(environment)
        listing = self._wire.listing(environment)
        if listing.splits is None:
            listing.splits = yield from operations.list_splits(self._wire, environment)
        return listing.splits

    def count_tasks(self, environment: str, split: str) -> Operation[int]:
        """Return the operation that counts the tasks of a split.

        Raises:
            UnknownTaskError: If there is no such split.
        """
        environment = yield from self.resolve(environment)
        counts = self._wire.listing(environment).counts
        if split not in counts:
            counts[split] = yield from operations.num_tasks(
                self._wire, environment, split
            )
        return counts[split]
