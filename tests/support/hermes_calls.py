"""Calls as Hermes and Qwen models write them."""

import json
from typing import Any


def write(tool: str, **given: Any) -> str:
    call = json.dumps({"name": tool, "arguments": given})
    return f"<tool_call>\n{call}\n</tool_call>"
