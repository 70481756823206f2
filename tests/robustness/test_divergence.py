"""NaN and Inf, wherever they arise, are a result that says so: never a number, never dropped without a count."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.cli import parser
from benchmark.report.caveats import warnings
from benchmark.report.group import group_runs
from benchmark.runs import checkpoints, store
from benchmark.runs import run as runner
from tests.robustness.helpers import TINY, execute, execute_all, numbers, tiny

pytestmark = pytest.mark.usefixtures("poisons")
QUERIES = {"query_train": 4, "query_test": 4}  # so that a query set is no support set


@pytest.mark.parametrize(
    ("method", "step"), [("inner-loss", 1), ("outer-loss", 1), ("meta-gradient", 1), ("one-task", 2)]
)
def test_a_run_that_diverges_says_where(method: str, step: int, unbroken: Path, tmp_path: Path) -> None:
    spec = tiny(method=method, **(QUERIES if method == "inner-loss" else {}))
    said = io.StringIO()
    states = execute_all(tmp_path, spec, TINY, console=Console(file=said, width=300))
    assert states == {spec.name: "diverged", TINY.name: "finished"}
    assert f"diverged: meta-step {step}: " in said.getvalue()
    run = store.load_run(tmp_path / spec.name)
    assert run.state == "diverged"
    assert f"meta-step {step}: loss or meta-gradient is not finite" in run.status["message"]
    assert run.status["iteration"] == step - 1
    assert run.evaluation is None
    assert run.training is not None
    assert len(run.training) == step - 1, "what was computed is kept"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken), "the next run is unaffected"
    assert runner.due(spec, tmp_path) == "done", "it is a result, not to be tried again"


@pytest.mark.usefixtures("figures_unrendered")
def test_a_run_that_diverged_is_shown_as_such_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tiny(method="outer-loss")
    execute_all(tmp_path / "results", spec, TINY)
    for words in (["status"], ["list", "runs"], ["report", "--reports", str(tmp_path / "reports")]):
        assert parser.main([*words, "--results", str(tmp_path / "results")]) == 0
        assert "diverged" in capsys.readouterr().out
    for name in ("table1.md", "table1.tex", "index.html", "warnings.md"):
        assert "diverged" in (tmp_path / "reports" / name).read_text(), name
    table = pd.read_csv(tmp_path / "reports" / "table1.csv").set_index("method")
    assert table["runs_diverged"].to_dict() == {"outer-loss": 1, TINY.method: 0}


def test_skipping_is_chosen_counted_and_recorded(tmp_path: Path) -> None:
    spec = tiny(method="one-task", on_nonfinite="skip")
    assert spec.name != tiny(method="one-task").name
    assert execute(tmp_path, spec) == "finished"
    run = store.load_run(tmp_path / spec.name)
    assert run.spec["on_nonfinite"] == "skip"
    assert run.status["skipped_steps"] == 1
    assert run.training is not None
    assert np.flatnonzero(run.training["loss"].isna()).tolist() == [1]
    assert f"skipped: {run.name} (1)" in " ".join(warnings(group_runs([run])))
    payload = checkpoints.read_checkpoint(run.path / "checkpoint.pt")
    assert all(value.isfinite().all() for value in payload["meta_parameters"].values())


def test_a_task_on_which_adaptation_diverges_stays_in_the_table(tmp_path: Path) -> None:
    spec = tiny(method="one-test-task")
    assert execute(tmp_path, spec) == "finished"
    run = store.load_run(tmp_path / spec.name)
    assert run.evaluation is not None
    assert len(run.evaluation) == spec.tasks
    assert np.flatnonzero(run.evaluation["nll"].isna()).tolist() == [4]


def test_where_every_validation_lacks_a_task_the_last_parameters_are_measured_and_it_is_said(tmp_path: Path) -> None:
    spec = tiny(method="one-validation-task")
    assert execute(tmp_path, spec) == "finished"
    run = store.load_run(tmp_path / spec.name)
    assert run.status["best_score"] is None
    said = [text for text in warnings(group_runs([run])) if "the last meta-parameters were measured" in text]
    assert len(said) == 1
    assert run.name in said[0]
    untrained = tiny(iterations=0)
    execute(tmp_path, untrained)
    assert "the last" not in " ".join(warnings(group_runs([store.load_run(tmp_path / untrained.name)])))
    execute(tmp_path, TINY)
    assert "the last meta-parameters" not in " ".join(warnings(group_runs([store.load_run(tmp_path / TINY.name)])))
