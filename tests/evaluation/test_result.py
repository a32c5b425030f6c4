"""The figures of an evaluation, in every form but words and pictures."""

import importlib
import json
import math

import pytest

from ors_gym.errors import MissingExtraError
from ors_gym.evaluation import Evaluation
from ors_gym.evaluation._collector import ProgressBar
from tests.evaluation.contract_evaluations import FOUND, make_record
from tests.support.processes import run_python


def test_it_is_a_mapping_of_the_published_figures_without_outages():
    figures = {"success_rate": 2 / 3, "avg_reward": 0.5, "avg_steps": 1.0}
    assert dict(FOUND) == {**figures, "results": FOUND.results}
    assert len(FOUND) == 4
    with pytest.raises(KeyError):
        FOUND["records"]
    assert (FOUND.outcomes, FOUND.errors) == (3, {"connection": 1})
    assert FOUND.results[3]["success"] is FOUND.results[3]["total_reward"] is None
    assert FOUND.pass_at_k(1) == pytest.approx(2 / 3)


def test_metrics_are_flat_finite_floats():
    metrics = FOUND.metrics()
    assert all(name.startswith("eval/") for name in metrics)
    assert all(type(one) is float and math.isfinite(one) for one in metrics.values())
    assert metrics["eval/success_rate"] == pytest.approx(2 / 3)
    assert metrics["eval/errors/connection"] == 1.0
    assert "x/episodes" in FOUND.metrics("x/")
    json.dumps(metrics, allow_nan=False)


def test_records_make_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FOUND.to_records())
    assert frame["total_reward"].mean() == 0.5
    assert list(frame["task_index"]) == [0, 1, 2, 3]
    assert {"tool_seconds", "stop_reason", "error_kind"} <= set(frame.columns)


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    importing = importlib.import_module

    def without(name, package=None):
        if name.startswith(("tqdm", "scipy", "matplotlib")):
            raise ImportError(name)
        return importing(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    found = Evaluation([make_record(0, 1.0), make_record(1, 0.0)])
    assert found["success_rate"] == 0.5
    for use in (
        lambda: found.success_interval,
        lambda: found.reward_interval,
        found.plot,
        lambda: found.pass_at_k(1),
        lambda: ProgressBar(1, "math", shown=True),
    ):
        with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[eval\]"'):
            use()


def test_importing_evaluations_loads_none_of_their_libraries():
    code = (
        "import sys, ors_gym.evaluation\n"
        "print([m for m in ('scipy', 'tqdm', 'matplotlib') if m in sys.modules])"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]")
