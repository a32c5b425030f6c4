"""A language model learns from episodes of many turns while it plays further ones.

    pip install "ors-gym[server]" torch transformers
    python async_grpo.py

A Qwen3 with random weights learns ``ors/guess`` in minutes on two cores. Rollouts go on
while the trainer takes a step, with the ids and log-probabilities that were sampled,
and new weights come in the middle of episodes. A player that bisects gets 0.85. For a
real model `Engine` asks vLLM or SGLang.
"""

import asyncio
import copy
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ors_gym.rollout import Episode, Generated, TokenPolicy, stream_groups

N, GROUPS, STALENESS = 8, 8, 4
"""Rollouts of a group, groups of a step, versions that a group may be old."""
TURNS, DECAY = 10, 0.5
"""Turns of an episode, and what the reward of the next turn counts for one."""
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a small one: numbers, and each call as one token; other text is unknown."""
    words = {str(number): number for number in range(1, 17)}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **words}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d+|\D+"), "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    markers = {"pad_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    made.add_special_tokens({"unk_token": "<unk>", **markers})
    for number in range(1, 17):
        call = json.dumps({"name": "guess", "arguments": {"number": number}})
        made.add_tokens(AddedToken(f"<tool_call>{call}</tool_call>", normalized=False))
    made.chat_template = TEMPLATE
    return made


def pad(rows: list[Any]) -> torch.Tensor:
    """Return rows of uneven length as one tensor, with zeros at their ends."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


class Engine:
    """Samples a call for all rollouts that wait, with weights of its own."""

    def __init__(self, model: Qwen3ForCausalLM, calls: torch.Tensor) -> None:
        self.model, self.calls, self.version = copy.deepcopy(model).eval(), calls, 0
        self.waiting: list[tuple[list[int], asyncio.Future[Generated]]] = []

    async def generate(self, ids: list[int], **_: Any) -> Generated:
        """Wait for one token: its grammar allows calls alone."""
        loop = asyncio.get_running_loop()
        self.waiting.append((ids, loop.create_future()))
        if len(self.waiting) == 1:
            loop.call_later(0.002, self.sample)
        return await self.waiting[-1][1]

    @torch.no_grad()
    def sample(self) -> None:
        """Answer all that wait."""
        waiting, self.waiting = self.waiting, []
        logits = self.model(pad([ids for ids, _ in waiting])).logits
        last = [len(ids) - 1 for ids, _ in waiting]
        chances = logits[range(len(waiting)), last][:, self.calls].log_softmax(-1)
        drawn = torch.multinomial(chances.exp(), 1)
        sampled = torch.stack([self.calls[drawn], chances.gather(1, drawn)]).squeeze(-1)
        for (_, future), token, logprob in zip(waiting, *sampled.tolist(), strict=True):
            if not future.done():
                said = [int(token)], [logprob], "length", self.version
                future.set_result(Generated(*said))


def rate(episodes: list[Episode]) -> torch.Tensor:
    """Return the advantage of each turn. All have one prompt, so they are one group."""
    earned = torch.full((len(episodes), TURNS), torch.nan)
    for row, episode in zip(earned, episodes, strict=True):
        later = 0.0
        for step in reversed(episode.steps):
            row[step.turn] = later = step.reward + DECAY * later
    advantage = (earned - earned.nanmean(0))[~earned.isnan()]
    return advantage / (advantage.std() + 1e-6)


def train(model: Any, optimizer: Any, episodes: Any, calls: torch.Tensor) -> None:
    """Take a step of GRPO with the clipped objective of PPO."""
    rows = [row for episode in episodes for row in episode.sequences()]
    ids = pad([row.ids for row in rows])
    sampled = pad([row.mask for row in rows]).bool()
    before = pad([row.logprobs for row in rows])[sampled]
    chances = model(ids).logits[:, :-1][sampled[:, 1:]][:, calls].log_softmax(-1)
    chosen = (ids[sampled][:, None] == calls).int().argmax(-1, keepdim=True)
    # Weights of some versions ago sampled these: the ratio corrects for that.
    ratio = (chances.gather(1, chosen)[:, 0] - before).exp()
    advantage = rate(episodes)
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    entropy = -(chances.exp() * chances).sum(-1)
    optimizer.zero_grad()
    (-(gain + 0.01 * entropy).mean()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


async def learn(
    url: str | None = None, seed: int = 0
) -> AsyncIterator[tuple[float, int]]:
    """Learn without end; yield the mean reward of each step, and how stale it was."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes, **heads))
    words = tokenizer.get_vocab().items()
    calls = torch.tensor([number for word, number in words if "tool_call" in word])
    engine, optimizer = Engine(model, calls), torch.optim.Adam(model.parameters(), 3e-3)
    policy = TokenPolicy(engine.generate, tokenizer, max_new_tokens=1)
    tasks = itertools.cycle(range(1000))
    limits: Any = {"n": N, "max_concurrent": 2 * N * GROUPS, "incomplete": "drop"}
    pace: Any = {"max_staleness": STALENESS, "version": lambda: engine.version}
    async with stream_groups(url, "guess", tasks, policy, **limits, **pace) as stream:
        while True:
            groups = [await anext(stream) for _ in range(GROUPS)]
            episodes = [episode for group in groups for episode in group]
            await asyncio.to_thread(train, model, optimizer, episodes, calls)
            engine.model.load_state_dict(model.state_dict())
            engine.version += 1
            reward = sum(sum(group.rewards) for group in groups) / len(episodes)
            yield reward, max(group.staleness or 0 for group in groups)


async def main() -> None:
    """Print how it goes, until Ctrl-C."""
    async for reward, stale in learn():
        print(f"mean reward {reward:5.2f}, at most {stale} versions old")


if __name__ == "__main__":
    asyncio.run(main())
