"""The clients: blocking and async, on pooled connections of our own."""

from ors_gym.client._async_client import AsyncORSClient, AsyncSession
from ors_gym.client._client import ORSClient, Session
from ors_gym.client.background import delete_sessions_on_sigterm
from ors_gym.client.http._httpx_transports import AsyncHTTPTransport, HTTPTransport
from ors_gym.protocol._exchange import Limits

__all__ = [
    "AsyncHTTPTransport",
    "AsyncORSClient",
    "AsyncSession",
    "HTTPTransport",
    "Limits",
    "ORSClient",
    "Session",
    "delete_sessions_on_sigterm",
]
