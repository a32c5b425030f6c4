"""Weights & Biases: an evaluation as a run, or as part of one.

    evaluate(None, "math", log_to=WandbLogger(project="ors"))

Tested with wandb 0.31, offline.
"""

from __future__ import annotations

from typing import Any

from ors_gym.errors import needs_extra
from ors_gym.evaluation import Evaluation, EvaluationLogger, Record
from ors_gym.evaluation._page import as_page
from ors_gym.types import JSONObject

__all__ = ["WandbLogger"]

with needs_extra("wandb", "ors_gym.integrations.wandb"):
    import wandb


class WandbLogger(EvaluationLogger):
    """Logs figures, a table of episodes and the page of the report.

    Without ``run`` it begins a run of its own, logs each episode as it ends, and
    finishes the run. In a run of yours it logs once, at the end, so that no step of
    your training is used up.

    Args:
        run: A run that is under way, such as that of a training.
        prefix: The beginning of each name.
        step: The step of your run to log at, such as the training step.
        **init: What ``wandb.init`` takes: ``project``, ``name``, ``mode``, ...

    Example:
        >>> from ors_gym import evaluate
        >>> from ors_gym.rollout import reference_policy
        >>> logger = WandbLogger(project="math", mode="disabled")
        >>> given = {"log_to": logger, "progress": False}
        >>> evaluate(None, "math", [0], reference_policy(), **given).success_rate
        1.0
    """

    def __init__(
        self,
        run: Any = None,
        *,
        prefix: str = "eval/",
        step: int | None = None,
        **init: Any,
    ) -> None:
        self.run = run
        self._own = run is None
        self._prefix = prefix
        self._step = step
        self._init = init

    def begin(self, run: JSONObject) -> None:
        """Begin a run, or note the evaluation in yours."""
        if self._own:
            self.run = wandb.init(**{"job_type": "eval", **self._init})
        # Two evaluations of one training may differ.
        self.run.config.update({self._prefix.rstrip("/"): run}, allow_val_change=True)

    def log_episode(self, record: Record) -> None:
        """Log the episode's figures, in a run of its own."""
        if self._own:
            prefix = f"{self._prefix}episode/"
            self.run.log({prefix + name: v for name, v in record.metrics().items()})

    def end(self, evaluation: Evaluation) -> None:
        """Log figures, table and page, and finish a run of its own."""
        environment = evaluation.head.get("environment", "")
        logged: dict[str, Any] = evaluation.metrics(self._prefix)
        logged[f"{self._prefix}episodes_table"] = _table(evaluation)
        page = as_page(f"Evaluation of {environment}", {str(environment): evaluation})
        logged[f"{self._prefix}report"] = wandb.Html(page, inject=False)
        self.run.log(logged, step=self._step)
        if evaluation.warnings:
            text = "\n".join(evaluation.warnings)
            self.run.alert(title="The figures are doubtful", text=text)
        if self._own:
            self.run.finish(exit_code=1 if evaluation.stopped else 0)


def _table(evaluation: Evaluation) -> Any:
    # A task without an index is a spec, which holds the answer.
    rows = [
        {name: value for name, value in row.items() if name != "task"}
        for row in evaluation.to_records()
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = [[row.get(name) for name in columns] for row in rows]
    return wandb.Table(columns=columns, data=data)
