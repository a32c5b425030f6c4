"""The clients: blocking and async, on pooled connections of our own."""

from ors_gym.client.async_session import AsyncSession
from ors_gym.client.asynchronous import AsyncORSClient
from ors_gym.client.blocking import ORSClient
from ors_gym.client.session import Session

__all__ = ["AsyncORSClient", "AsyncSession", "ORSClient", "Session"]
