"""Every accepted form of an action, read into a tool call."""

from ors_gym.actions.parsing import (
    InvalidAction,
    ParsedCall,
    TextParser,
    explain_unserialisable,
    parse_action,
    parse_actions,
)

__all__ = [
    "InvalidAction",
    "ParsedCall",
    "TextParser",
    "explain_unserialisable",
    "parse_action",
    "parse_actions",
]
