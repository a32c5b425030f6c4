"""Evaluations: a policy on many tasks, with figures that say how certain they are."""

from __future__ import annotations

from ors_gym.evaluation._evaluate import Options, evaluate, parallel_evaluate
from ors_gym.evaluation._export import Exported, ExportFormat, export
from ors_gym.evaluation._figures import Comparison
from ors_gym.evaluation._live_page import view
from ors_gym.evaluation._loggers import EvaluationLogger
from ors_gym.evaluation._rescore import Scorer, rescore
from ors_gym.evaluation._result import Evaluation
from ors_gym.evaluation._statistics import Interval, pass_at_k, pass_hat_k
from ors_gym.rollout._output import Record

__all__ = [
    "Comparison",
    "Evaluation",
    "EvaluationLogger",
    "ExportFormat",
    "Exported",
    "Interval",
    "Options",
    "Record",
    "Scorer",
    "evaluate",
    "export",
    "parallel_evaluate",
    "pass_at_k",
    "pass_hat_k",
    "rescore",
    "view",
]
