"""Libraries that only evaluations need, imported when they are."""

from __future__ import annotations

import importlib
from typing import Any

from ors_gym.errors import MissingExtraError

__all__ = ["load"]


def load(module: str, purpose: str, extra: str = "eval") -> Any:
    """Import a module of an extra.

    Args:
        module: Its name.
        purpose: What it is needed for, to begin the message with.
        extra: Which extra brings it.

    Returns:
        The module.

    Raises:
        MissingExtraError: If it is not installed; says how to install it.

    Example:
        >>> load("json", "Nothing").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]!r}, which is not installed. "
            f'Install it with: pip install "ors-gym[{extra}]"'
        ) from error
