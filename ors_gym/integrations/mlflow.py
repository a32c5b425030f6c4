"""MLflow: an evaluation as a run, or as part of one.

    evaluate(None, "math", log_to=MlflowLogger(experiment="ors"))

Tested with mlflow-skinny 3.17 and a store of files.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.errors import needs_extra
from ors_gym.evaluation import Evaluation, EvaluationLogger, Record
from ors_gym.evaluation._page import as_page
from ors_gym.types import JSONObject

__all__ = ["MlflowLogger"]

with needs_extra("mlflow", "ors_gym.integrations.mlflow"):
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

_MOST_AT_ONCE: Final = 1000
"""Metrics of one request, as MLflow's servers accept them."""
_LONGEST_PARAMETER: Final = 6000


class MlflowLogger(EvaluationLogger):
    """Logs figures, those of each episode as it ends, and the page of the report.

    Args:
        run_id: A run that is under way, such as that of a training; if None, the
            logger begins one of its own and ends it.
        experiment: The name of the experiment of that run; made if there is none.
        run_name: The name of that run.
        tracking_uri: Where to log; if None, where MLflow does.
        prefix: The beginning of each name.
        step: The step of the figures, such as the training step.

    Example:
        >>> logger = MlflowLogger(experiment="math", tracking_uri="http://localhost:5000")
        >>> # evaluate(..., log_to=logger)
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        experiment: str = "ors_gym",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        prefix: str = "eval/",
        step: int = 0,
    ) -> None:
        self.run_id = run_id
        self._own = run_id is None
        self._experiment = experiment
        self._run_name = run_name
        # A client, since the functions of MLflow keep a run for each thread.
        self._client = MlflowClient(tracking_uri)
        self._prefix = prefix
        self._step = step
        self._episodes = 0

    def begin(self, run: JSONObject) -> None:
        """Begin a run, or note the evaluation in yours."""
        if self._own:
            found = self._client.get_experiment_by_name(self._experiment)
            place = (
                self._client.create_experiment(self._experiment)
                if found is None
                else found.experiment_id
            )
            made = self._client.create_run(place, run_name=self._run_name)
            self.run_id = made.info.run_id
            # In a run of yours the episodes of the next evaluation follow.
            self._episodes = 0
        limits = run.get("limits")
        flat = {**run, **(limits if isinstance(limits, Mapping) else {})}
        flat.pop("limits", None)
        parameters = [
            Param(_name(self._prefix + name), str(value)[:_LONGEST_PARAMETER])
            for name, value in flat.items()
        ]
        # A parameter cannot be changed: a second evaluation of a run keeps the first's.
        known = self._client.get_run(self.run_id).data.params
        new = [one for one in parameters if one.key not in known]
        self._client.log_batch(self.run_id, params=new)

    def log_episode(self, record: Record) -> None:
        """Log the episode's figures, one step for each episode."""
        prefix = f"{self._prefix}episode/"
        figures = {prefix + name: value for name, value in record.metrics().items()}
        self._log(figures, self._episodes)
        self._episodes += 1

    def end(self, evaluation: Evaluation) -> None:
        """Log figures, rows and page, and end a run of its own."""
        self._log(evaluation.metrics(self._prefix), self._step)
        environment = str(evaluation.head.get("environment", ""))
        page = as_page(f"Evaluation of {environment}", {environment: evaluation})
        folder = self._prefix.strip("/") or "eval"
        self._client.log_text(self.run_id, page, f"{folder}/report.html")
        rows = [{**row, "task": None} for row in evaluation.to_records()]
        self._client.log_dict(self.run_id, {"rows": rows}, f"{folder}/episodes.json")
        if evaluation.warnings:
            text = "\n".join(evaluation.warnings)
            self._client.set_tag(self.run_id, f"{folder}.warnings", text)
        if self._own:
            status = "FAILED" if evaluation.stopped else "FINISHED"
            self._client.set_terminated(self.run_id, status)

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(_name(k), v, now, step) for k, v in figures.items()]
        for start in range(0, len(metrics), _MOST_AT_ONCE):
            part: Any = metrics[start : start + _MOST_AT_ONCE]
            self._client.log_batch(self.run_id, metrics=part)


def _name(name: str) -> str:
    """Replace what MLflow allows in no name.

    In a store of files ``errors`` cannot be a metric and a folder of metrics.
    """
    return re.sub(r"[^\w\-./ :]", "_", name.replace("errors/", "errors."))
