"""What a client's server has: environments, tools, splits and numbers of tasks."""

from __future__ import annotations

from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation
from ors_gym.protocol._server import Server
from ors_gym.types import Split, ToolSpec

__all__ = ["Catalog"]


class Catalog:
    """Operations that ask what a server has, each question once per client.

    Every env of a client shares the answers. `ORSClient.run` runs an operation.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def resolve(self, env_name: str) -> Operation[str]:
        """Return the operation that finds the server's spelling of an environment."""
        return operations.resolve_environment(self._server, env_name)

    def known_tools(self, environment: str) -> list[ToolSpec] | None:
        """Return the tools of an environment; None if nobody asked for them yet."""
        return self._server.known.listing(environment).tools

    def tools(self, environment: str) -> Operation[list[ToolSpec]]:
        """Return the operation that lists the tools that every session has."""
        environment = yield from self.resolve(environment)
        listing = self._server.known.listing(environment)
        if listing.tools is None:
            asked = operations.list_tools(self._server, environment)
            listing.tools, _ = yield from asked
        return listing.tools

    def splits(self, environment: str) -> Operation[list[Split]]:
        """Return the operation that lists the splits of an environment."""
        environment = yield from self.resolve(environment)
        listing = self._server.known.listing(environment)
        if listing.splits is None:
            asked = operations.list_splits(self._server, environment)
            listing.splits = yield from asked
        return listing.splits

    def count_tasks(self, environment: str, split: str) -> Operation[int]:
        """Return the operation that counts the tasks of a split."""
        environment = yield from self.resolve(environment)
        counts = self._server.known.listing(environment).counts
        if split not in counts:
            asked = operations.num_tasks(self._server, environment, split)
            counts[split] = yield from asked
        return counts[split]
