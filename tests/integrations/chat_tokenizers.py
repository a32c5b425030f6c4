"""Byte-level tokenizers, made here, for any chat template."""

import functools
import re
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SMOLLM2: Final = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' "
    "%}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
    "Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The chat template of SmolLM2 (Apache License 2.0)."""
_MARKER: Final = re.compile(
    r"<\|[^|>\s]+\|>|<\uff5c[^\uff5c>]+\uff5c>|<(?:start|end)_of_turn>"
    r"|</?think>|</?tool_\w+>|</?arg_\w+>|\[gMASK\]|<sop>"
    r"|<end_of_utterance>|<image>|<fake_token_around_image>|<global-img>"
)
_SPECIAL: Final = re.compile(r"<\||<\uff5c|_of_turn|_of_utterance|image>|-img>")
_STRIPPING: Final = ("<|end|>", "<|user|>", "<|assistant|>")
"""Those of Phi-3, which take the blanks behind them."""
_TEXTS: Final = (
    "The number is higher than 8, and you have 3 guesses left. " * 4,
    '<tool_call>\n{"name": "look", "arguments": {"x": "y"}}\n</tool_call>\n' * 4,
    "Größe — 東京 \U0001f600 e\u0301 \n\n\t  user system assistant tool\n" * 4,
)


@functools.cache
def train_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer with the special tokens that its template names."""
    markers = list(dict.fromkeys(_MARKER.findall(template)))
    special = [one for one in markers if _SPECIAL.search(one)]
    plain = [one for one in markers if not _SPECIAL.search(one)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[
            "<|endoftext|>",
            "<s>",
            *(
                AddedToken(one, special=True, rstrip=one in _STRIPPING)
                for one in special
            ),
        ],
        show_progress=False,
    )
    trained.train_from_iterator(_TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token="<|endoftext|>", bos_token="<s>"
    )
    # As in the real tokenizers, the tags of reasoning and calls are not "special".
    tokenizer.add_tokens(
        [AddedToken(one, special=False, normalized=False) for one in plain]
    )
    tokenizer.chat_template = template
    return tokenizer
