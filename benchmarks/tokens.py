"""The cost of rendering and bookkeeping of `TokenPolicy`, beside that of a step.

    PYTHON -m benchmarks.tokens [--rounds 7] [--json FILE]

PYTHON is the interpreter of the environment of the training frameworks
(``python -m tests.integrations.venvs training`` makes it), which ``python -m benchmarks
--only tokens`` finds. A step is taken to be cheap: 64 tokens sampled by a Qwen3 of two
layers and 80,000 parameters, its cache kept, and no tool call. Figures are CPU time.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any, Final

import torch
from trl.chat_template_utils import qwen3_training_chat_template

from benchmarks.rows import Row
from ors_gym.rollout import Episode, Generated, Step, TokenPolicy
from ors_gym.rollout._turn_by_turn import TurnReader
from tests.integrations.chat_tokenizers import train_tokenizer
from tests.integrations.tiny_model import make_model
from tests.rollout.scripted_env import TOOLS

__all__ = ["measure"]

_CONTEXT: Final = 4000
_SAMPLED: Final = 64
_TURNS: Final = 200
_BAND: Final = 10
"""Turns around the second and the last that are compared, to even out noise."""
_REPLY: Final = "It is higher than 8. It is in 9..16, and you have 3 guesses left. " * 2
_CALL: Final = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call><|im_end|>'


class _Player:
    """Plays turns of an episode, without a server, and times the policy's part."""

    def __init__(self) -> None:
        tokenizer = train_tokenizer(qwen3_training_chat_template)
        call = tokenizer.encode(_CALL)
        filler = tokenizer.encode("\n")[:1]
        self._sampled = filler * (_SAMPLED - len(call)) + call
        self._engine_seconds = 0.0
        self._policy = TokenPolicy(self._generate, tokenizer)
        self._reader = TurnReader(TOOLS)

    def _generate(self, ids: list[int], **_: Any) -> Generated:
        start = time.process_time()
        self.context = len(ids)
        generated = Generated(self._sampled, [-0.5] * _SAMPLED, version=1)
        self._engine_seconds += time.process_time() - start
        return generated

    def play(self, turns: int = 0, context: int = 0) -> list[float]:
        """Return the seconds of each turn, up to a number or a length of context."""
        prompt: Any = [{"type": "text", "text": "Guess the number. " * 20}]
        episode = Episode("guess", prompt=prompt, tools=TOOLS)
        seconds: list[float] = []
        self.context = 0
        while len(seconds) < turns or self.context < context:
            self._engine_seconds = 0.0
            start = time.process_time()
            answer = self._policy(episode)
            took = time.process_time() - start - self._engine_seconds
            seconds.append(took)
            turn, (action,) = self._reader.read(answer, len(episode.turns))  # type: ignore[misc]
            episode.turns.append(turn)
            blocks: Any = [{"type": "text", "text": _REPLY}]
            number = len(episode.turns) - 1
            episode.steps.append(Step(number, action.id, "look", {}, blocks, 0.0))
        return seconds


def _sampling_seconds() -> float:
    """Return the CPU seconds of sampling one turn after a context of 4,000 tokens."""
    tokenizer = train_tokenizer(qwen3_training_chat_template)
    model = make_model(tokenizer, 0).eval()
    with torch.inference_mode():
        ids = torch.randint(len(tokenizer), (1, _CONTEXT))
        known = model(ids, use_cache=True).past_key_values
        start = time.process_time()
        token = ids[:, -1:]
        for _ in range(_SAMPLED):
            output = model(token, past_key_values=known, use_cache=True)
            token = torch.multinomial(output.logits[:, -1].softmax(-1), 1)
        return time.process_time() - start


def measure(rounds: int) -> list[Row]:
    """Measure both budgets.

    Args:
        rounds: Episodes of each kind.

    Returns:
        The rows.
    """
    torch.set_num_threads(1)
    player = _Player()
    player.play(turns=20)
    late = [player.play(context=_CONTEXT)[-_BAND:] for _ in range(rounds)]
    ours = statistics.median(second for turns in late for second in turns)
    step = statistics.median(_sampling_seconds() for _ in range(3)) + ours
    ratios = []
    for _ in range(rounds):
        seconds = player.play(turns=_TURNS)
        early = statistics.median(seconds[1 : 1 + _BAND])
        ratios.append(statistics.median(seconds[-_BAND:]) / early)
    print(
        f"{ours * 1e6:.0f} us a turn; a step takes {step * 1e3:.1f} ms", file=sys.stderr
    )
    return [
        Row("tokens at 4,000 of context, of a step", 100 * ours / step, 5, unit="%"),
        Row("tokens: turn 200 to turn 2", statistics.median(ratios), 1.2),
    ]


def main() -> int:
    """Print the rows.

    Returns:
        The exit status: 1 if a budget is not met.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    rows = measure(options.rounds)
    for row in rows:
        verdict = "met" if row.met else "FAILED"
        print(f"{row.what:45} {row.figure:>22} {row.budget:>8}  {verdict}")
    if options.json:
        options.json.write_text(json.dumps([row.as_json() for row in rows]))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
