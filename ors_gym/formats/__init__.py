"""Other people's formats, read and written in one place.

- Actions: `parse_action` reads one tool call in any accepted form, `parse_actions` a
  whole assistant turn.
- Tools: `to_openai_tools`, `to_anthropic_tools`, `describe_tools` (a system message for
  Hermes and Qwen), and `provider_tool_name` and `provider_schema` behind them.
- Messages: `to_openai_messages` and `to_anthropic_messages` write a prompt,
  `to_template_messages` makes its messages those of a chat template,
  `tool_result_messages` the results of an assistant turn; the other ``to_...``
  functions write one call or the content of one message.
- Blocks: `render_text` writes a prompt or an output as text, `decode_blocks` also
  decodes its images into arrays.
"""

from ors_gym.formats._actions import (
    InvalidAction,
    ParsedCall,
    TextParser,
    parse_action,
    parse_actions,
)
from ors_gym.formats._blocks import (
    MAX_PIXELS,
    DecodedBlocks,
    decode_blocks,
    decode_image,
    render_text,
)
from ors_gym.formats._messages import (
    ToolResult,
    to_anthropic_content,
    to_anthropic_messages,
    to_anthropic_tool_call,
    to_mcp_content,
    to_openai_content,
    to_openai_messages,
    to_openai_tool_call,
    to_template_messages,
    tool_result_messages,
)
from ors_gym.formats._tools import (
    describe_tools,
    provider_schema,
    provider_tool_name,
    to_anthropic_tools,
    to_mcp_tools,
    to_openai_tools,
)

__all__ = [
    "MAX_PIXELS",
    "DecodedBlocks",
    "InvalidAction",
    "ParsedCall",
    "TextParser",
    "ToolResult",
    "decode_blocks",
    "decode_image",
    "describe_tools",
    "parse_action",
    "parse_actions",
    "provider_schema",
    "provider_tool_name",
    "render_text",
    "to_anthropic_content",
    "to_anthropic_messages",
    "to_anthropic_tool_call",
    "to_anthropic_tools",
    "to_mcp_content",
    "to_mcp_tools",
    "to_openai_content",
    "to_openai_messages",
    "to_openai_tool_call",
    "to_openai_tools",
    "to_template_messages",
    "tool_result_messages",
]
