"""A random language model learns to answer over HTTP: ``python -m benchmarks.grpo``.

GRPO with TRL's own trainer through `ors_gym.integrations.trl`, against the embedded
server: four questions, a Qwen3 with random weights, and tool calls as single tokens.
One server process, one training process and one thread; about a second a step.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import tempfile
import time
from argparse import ArgumentParser
from typing import Any, Final

import torch
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from ors_gym import ORSClient
from ors_gym.integrations.trl import trl_environment
from ors_gym.server import serve
from tests.integrations.tiny_model import call_text, make_model, make_tokenizer

__all__ = ["GENERATIONS", "Curve", "Recorder", "draw", "learn", "main", "make_trainer"]

GENERATIONS: Final = 16
_TASKS: Final = 4
_BATCH: Final = _TASKS * GENERATIONS
_DISTRACTORS: Final = 4
_WINDOW: Final = 10
_GOAL: Final = 0.9


@dataclasses.dataclass
class Curve:
    """How one model learned.

    Args:
        seed: Of its weights, and of what it sampled.
        rewards: The mean reward of each step's rollouts.
        seconds: How long all of it took.
    """

    seed: int
    rewards: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def start(self) -> float:
        """The mean reward of the first steps."""
        return _mean(self.rewards[:_WINDOW])

    @property
    def end(self) -> float:
        """The mean reward of the last steps."""
        return _mean(self.rewards[-_WINDOW:])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Recorder(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Keeps what the trainer logs.

    Args:
        rewards: Where the mean reward of each step goes.
        verbose: Whether some of it is printed.
    """

    def __init__(self, rewards: list[float], *, verbose: bool = False) -> None:
        self.rewards = rewards
        self.logs: list[dict[str, float]] = []
        self.verbose = verbose

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Take one step's figures."""
        logs = given["logs"]
        if "reward" not in logs:
            return
        self.rewards.append(float(logs["reward"]))
        self.logs.append(dict(logs))
        if self.verbose and len(self.rewards) % 20 == 0:
            recent = _mean(self.rewards[-_WINDOW:])
            print(f"  step {len(self.rewards)}: {recent:.2f}", flush=True)


def make_trainer(
    base_url: str,
    seed: int,
    steps: int,
    directory: str,
    *,
    recorder: Recorder | None = None,
    **arguments: Any,
) -> GRPOTrainer:
    """Make a trainer of a tiny model on four questions.

    Args:
        base_url: A server with ``math``.
        seed: Of everything that is random.
        steps: Steps of training.
        directory: Where the trainer may write.
        recorder: Is told of every step.
        **arguments: Further arguments of `trl_environment`.

    Returns:
        The trainer.
    """
    with ORSClient(base_url) as client:
        tasks = client.get_task_range("math", "train", 0, _TASKS + _DISTRACTORS)
    answers = dict.fromkeys(str(task["answer"]) for task in tasks)
    calls = [call_text("submit", {"answer": answer}) for answer in answers]
    numbers = {
        word: None for task in tasks for word in re.findall(r"\d+", task["question"])
    }
    tokenizer = make_tokenizer(calls, numbers)
    made = trl_environment(
        "math",
        base_url,
        tasks=range(_TASKS),
        num_generations=GENERATIONS,
        **arguments,
    )
    config = GRPOConfig(
        output_dir=directory,
        per_device_train_batch_size=_BATCH,
        num_generations=GENERATIONS,
        max_completion_length=2,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        beta=0.0,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        seed=seed,
        data_seed=seed,
    )
    trainer = GRPOTrainer(
        model=make_model(tokenizer, seed),
        args=config,
        processing_class=tokenizer,
        callbacks=[recorder] if recorder is not None else [],
        **made._asdict(),
    )
    # It prints some 40 figures a step.
    trainer.remove_callback(PrinterCallback)
    return trainer


def learn(seed: int, steps: int, *, verbose: bool = False) -> Curve:
    """Train a model from random weights.

    Args:
        seed: Of everything that is random.
        steps: Steps of training.
        verbose: Whether progress is printed.

    Returns:
        Its curve.
    """
    curve = Curve(seed)
    recorder = Recorder(curve.rewards, verbose=verbose)
    started = time.monotonic()
    with serve() as base_url, tempfile.TemporaryDirectory() as directory:
        make_trainer(base_url, seed, steps, directory, recorder=recorder).train()
    curve.seconds = time.monotonic() - started
    return curve


def draw(curves: list[Curve], picture: pathlib.Path, *, goal: float = _GOAL) -> None:
    """Draw the curves.

    Args:
        curves: How the models learned.
        picture: The path of the PNG file.
        goal: The reward to be reached, as a dotted line.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for curve in curves:
        rewards = curve.rewards
        smooth = [
            _mean(rewards[max(0, n - _WINDOW) : n]) for n in range(1, len(rewards) + 1)
        ]
        (line,) = axes.plot(smooth, label=f"seed {curve.seed}", linewidth=2)
        axes.plot(rewards, color=line.get_color(), alpha=0.2, linewidth=0.8)
    axes.axhline(goal, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="step", ylabel="mean reward of 64 rollouts", ylim=(None, 1.02))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(picture, dpi=160)
    plt.close(figure)


def make_parser(name: str, description: str | None, steps: int) -> ArgumentParser:
    """Make the parser of a benchmark that trains some models."""
    parser = ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description
    )
    parser.add_argument("--seeds", type=int, default=1, help="models; default 1")
    parser.add_argument("--first-seed", type=int, default=0)
    steps_help = f"default {steps}"
    parser.add_argument("--steps", type=int, default=steps, help=steps_help)
    parser.add_argument("--picture", type=pathlib.Path, help="write the curves here")
    return parser


def main() -> int:
    """Train one model after another, and print and draw how they learned."""
    parser = make_parser("grpo", __doc__, steps=220)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    curves = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        curve = learn(seed, options.steps, verbose=True)
        curves.append(curve)
        print(
            f"seed {seed}: mean reward {curve.start:.2f} -> {curve.end:.2f} in "
            f"{len(curve.rewards)} steps, {curve.seconds:.0f} s",
            flush=True,
        )
    if options.picture:
        draw(curves, options.picture)
    if options.json:
        record = [dataclasses.asdict(curve) for curve in curves]
        options.json.write_text(json.dumps(record) + "\n")
    good = sum(curve.end >= _GOAL for curve in curves)
    print(f"{good} of {len(curves)} reached {_GOAL}")
    return 0 if good * 3 >= 2 * len(curves) else 1


if __name__ == "__main__":
    raise SystemExit(main())
