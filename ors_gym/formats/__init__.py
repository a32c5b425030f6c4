"""Tool specs, prompts and results in the formats of chat APIs."""

from ors_gym.formats.prompts import (
    to_anthropic_messages,
    to_openai_messages,
)
from ors_gym.formats.provider_schema import (
    provider_schema,
)
from ors_gym.formats.results import (
    ToolResult,
    to_anthropic_content,
    to_anthropic_tool_call,
    to_anthropic_tools,
    to_openai_content,
    to_openai_tool_call,
    to_openai_tools,
    tool_result_messages,
)

__all__ = [
    "ToolResult",
    "provider_schema",
    "to_anthropic_content",
    "to_anthropic_messages",
    "to_anthropic_tool_call",
    "to_anthropic_tools",
    "to_openai_content",
    "to_openai_messages",
    "to_openai_tool_call",
    "to_openai_tools",
    "tool_result_messages",
]
