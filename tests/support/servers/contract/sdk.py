"""Whichever server SDK is installed, and what it can do."""

import importlib
import importlib.machinery
import sys
import types
from typing import Any


def _import_sdk() -> Any:
    """Import the server half of whichever SDK is installed.

    The ``__init__`` of the openreward package imports its clients and with them three
    vendors' model clients, which are not installed here. An empty package in its
    place leaves the server's own modules as they are.
    """
    if importlib.machinery.PathFinder.find_spec("ors"):
        return importlib.import_module("ors")
    spec = importlib.machinery.PathFinder.find_spec("openreward")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("neither ors-sdk nor openreward is installed")
    package = types.ModuleType("openreward")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["openreward"] = package
    return importlib.import_module("openreward.environments")


sdk = _import_sdk()
Base: Any = sdk.Environment
tool: Any = sdk.tool
TextBlock: Any = sdk.TextBlock
ImageBlock: Any = sdk.ImageBlock
ToolOutput: Any = sdk.ToolOutput
HAS_TASK_TOOLS = hasattr(Base, "list_task_tools")
HAS_INDEX = hasattr(Base, "num_tasks")
HAS_MESSAGES = hasattr(Base, "get_messages")
