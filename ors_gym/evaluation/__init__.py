"""Evaluations: a policy on many tasks, with figures that say how certain they are."""

from __future__ import annotations

from ors_gym.evaluation.comparison import Comparison
from ors_gym.evaluation.entry import evaluate, parallel_evaluate
from ors_gym.evaluation.options import Options
from ors_gym.evaluation.records import Record
from ors_gym.evaluation.result import Evaluation
from ors_gym.evaluation.statistics import Interval, pass_at_k, pass_hat_k

__all__ = [
    "Comparison",
    "Evaluation",
    "Interval",
    "Options",
    "Record",
    "evaluate",
    "parallel_evaluate",
    "pass_at_k",
    "pass_hat_k",
]
