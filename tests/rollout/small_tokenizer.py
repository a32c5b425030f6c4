"""A tokenizer of single characters and a few special tokens, with templates in Python.

It has the part of the interface of `transformers` that `TemplateRenderer` uses.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Template = Callable[[Sequence[Mapping[str, Any]], Any, bool], str]

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
_SPECIAL: Final = ("<|endoftext|>", START, END)
_FIRST_CHARACTER: Final = 100


class _AddedToken:
    def __init__(self, text: str) -> None:
        self.text = text
        self.special = True

    def __str__(self) -> str:
        return self.text


def chatml(messages: Sequence[Mapping[str, Any]], tools: Any, begin_turn: bool) -> str:
    """Write every message as it is."""
    written = "".join(
        f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages
    )
    return written + (f"{START}assistant\n" if begin_turn else "")


class SmallTokenizer:
    eos_token_id = 0

    def __init__(self, template: Template = chatml) -> None:
        self.chat_template: Any = template

    @property
    def added_tokens_decoder(self) -> dict[int, _AddedToken]:
        return {number: _AddedToken(text) for number, text in enumerate(_SPECIAL)}

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
    ) -> str:
        assert not tokenize
        text: str = self.chat_template(messages, tools, add_generation_prompt)
        return text

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        assert not add_special_tokens
        ids = []
        for part in re.split(f"({'|'.join(map(re.escape, _SPECIAL))})", text):
            if part in _SPECIAL:
                ids.append(_SPECIAL.index(part))
            else:
                ids += [_FIRST_CHARACTER + ord(character) for character in part]
        return ids

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(
            _SPECIAL[one] if one < len(_SPECIAL) else chr(one - _FIRST_CHARACTER)
            for one in ids
        )
