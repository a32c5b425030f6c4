"""What the blocking and the async client have in common."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Self, TypeVar

from ors_gym.client._catalog import Catalog
from ors_gym.client._connection import Link
from ors_gym.client._settings import ClientSettings
from ors_gym.client.background._thread import abandon_in_background, background
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._dialect import Dialect
from ors_gym.protocol._exchange import Limits, Operation
from ors_gym.protocol._retries import Retry

__all__ = ["BaseClient"]

T = TypeVar("T")


class BaseClient:
    """A client without the way it does its exchanges."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        trust_env: bool = False,
        allow_insecure: bool = False,
        limits: Limits | None = None,
        repeat_calls_after_429: bool = True,
        on_retry: Callable[[Retry], None] | None = None,
    ) -> None:
        self.link = Link(
            base_url,
            api_key=api_key,
            headers=headers,
            timeout=timeout,
            allow_insecure=allow_insecure,
            limits=limits,
            repeat_calls_after_429=repeat_calls_after_429,
        )
        if on_retry is not None:
            self.link.retries.subscribe(on_retry)
        abandon_in_background(self.link)
        self._settings = ClientSettings(
            base_url=self.link.base_url,
            headers=self.link.headers,
            timeout=timeout,
            trust_env=trust_env,
            allow_insecure=allow_insecure,
            limits=self.link.limits,
            repeat_calls_after_429=repeat_calls_after_429,
        )
        self.catalog = Catalog(self.link.wire)
        """Operations that ask what the server has, each question once."""

    @classmethod
    def from_settings(cls, settings: ClientSettings) -> Self:
        """Make a client with the settings of another one, also in another process.

        Args:
            settings: Those of the other client.

        Returns:
            A client with connections of its own.
        """
        return cls(**settings.arguments())

    @classmethod
    def from_client(cls, other: BaseClient) -> Self:
        """Make a client for the same server, such as a blocking one of an async one.

        It shares what the other client knows of the server, and tells the other's
        subscribers of its own retries.

        Args:
            other: A blocking or an async client, also one of another event loop.

        Returns:
            A client with connections of its own.

        Raises:
            InvalidRequestError: If the other client has connections of the user's own.
        """
        client = cls.from_settings(other.settings)
        client.link.wire.share_knowledge_of(other.link.wire)
        client.link.retries.subscribe(other.link.retries.tell)
        return client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.link.base_url

    @property
    def settings(self) -> ClientSettings:
        """The client's settings: they can be pickled, and hold its key.

        Raises:
            InvalidRequestError: If the client has connections of the user's own.
        """
        if self.link.background_exchange is not None:
            raise InvalidRequestError(
                f"{self!r} was given an httpx transport or a proxy of its own, which "
                "cannot be used in another thread or process; await parallel_evaluate "
                "or run_episode_async with an AsyncORSClient that has it"
            )
        return self._settings

    @property
    def dialect(self) -> Dialect:
        """What the server speaks, once it was asked for anything."""
        return self.link.wire.spoken

    def subscribe_to_retries(
        self, callback: Callable[[Retry], None]
    ) -> Callable[[], None]:
        """Have a function told before a request is repeated.

        Args:
            callback: The function. It is one of several: each is told.

        Returns:
            A function that ends the subscription.
        """
        return self.link.retries.subscribe(callback)

    def run_in_background(
        self, operation: Operation[T]
    ) -> concurrent.futures.Future[T]:
        """Run an operation on the loop of the background, over its own connections.

        Args:
            operation: The operation, such as one that opens a session.

        Returns:
            The future result.
        """
        return background().submit(self.link, operation)
