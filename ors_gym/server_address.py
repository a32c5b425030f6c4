"""Which server an env talks to when nobody says."""

from __future__ import annotations

import os

__all__ = ["find_server"]


def find_server(base_url: str | None) -> str:
    """Return a server's address.

    Args:
        base_url: What the user said, if anything.

    Returns:
        That; else the variable ``ORS_BASE_URL``; else the embedded server's, which is
        started if it does not run yet.

    Raises:
        MissingExtraError: If the embedded server is needed and not installed.

    Example:
        >>> find_server("http://127.0.0.1:8080")
        'http://127.0.0.1:8080'
    """
    if base_url is not None:
        return base_url
    from_environment = os.environ.get("ORS_BASE_URL")
    if from_environment:
        return from_environment
    # Imported here, as most users never need it.
    from ors_gym.server import embedded_base_url  # noqa: PLC0415

    return embedded_base_url()
