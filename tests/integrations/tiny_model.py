"""A random Qwen3 of some 80,000 parameters that can say little but tool calls.

Each complete ``<tool_call>`` block is one token, so that one sampled token acts and a
few minutes on a CPU are enough to learn which. The chat template is that of Qwen3.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl.chat_template_utils import qwen3_chat_template

_END = "<|im_end|>"
_PAD = "<|endoftext|>"
_START = "<|im_start|>"
_UNKNOWN = "<unk>"


def call_text(tool: str, arguments: dict[str, Any]) -> str:
    """Return a call as Qwen3 writes it."""
    call = json.dumps({"name": tool, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def make_tokenizer(
    calls: Sequence[str], numbers: Iterable[str]
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of a few numbers, to which text between numbers is one token.

    Prompts become a few dozen tokens long, which makes a step some ten times quicker.
    """
    vocabulary = {word: number for number, word in enumerate((_UNKNOWN, *numbers))}
    words_only = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN))
    words_only.pre_tokenizer = Split(Regex(r"\d+|\D+"), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_only, eos_token=_END, pad_token=_PAD, unk_token=_UNKNOWN
    )
    tokenizer.add_tokens([AddedToken(_START, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(call, normalized=False) for call in calls])
    tokenizer.chat_template = qwen3_chat_template
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)
