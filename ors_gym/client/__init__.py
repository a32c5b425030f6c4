"""The clients: blocking and async, on pooled connections of our own."""

from ors_gym.client._async_client import AsyncORSClient, AsyncSession
from ors_gym.client._client import ORSClient, Session

__all__ = ["AsyncORSClient", "AsyncSession", "ORSClient", "Session"]
