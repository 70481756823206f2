"""Synthetic results: run directories of the stored format with numbers that the tests know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.files import write_json
from benchmark.runs.store import SCHEMA, Run, load_run
from benchmark.spec import RunSpec

ENVIRONMENT = {
    "python": "3.12.1",
    "torch": "2.14.1",
    "platform": "Linux",
    "device": "cpu",
    "threads": 2,
    "commit": "abc1234",
    "version": "0.1.0",
    "started": "2030-01-01T00:00:00+00:00",
}


def build_run(
    results: Path,
    method: str = "maml",
    *,
    accuracy: Any = None,
    nll: Any = None,
    mean: float = 0.5,
    tasks: int = 200,
    state: str = "finished",
    trace: bool = True,
    environment: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    start: float = 1.6,
    rate: float = 0.7,
    card: dict[str, Any] | None = None,
    **knobs: Any,
) -> Run:
    """Write one run directory. `accuracy` [T] fixes the per-task scores, else they scatter around `mean`.

    Tasks share a difficulty between methods, as real ones do; the support loss is ``start·rate^k``.
    """
    spec = RunSpec(method=method, **({"tasks": tasks} | knobs))
    path = results / spec.name
    path.mkdir(parents=True)
    write_json(path / "spec.json", {
        "schema": SCHEMA, "name": spec.name, "spec": spec.to_dict(), "environment": ENVIRONMENT | (environment or {}),
        "command": ["python", "-m", "benchmark", "run", "--methods", method],
    } | ({"card": card} if card else {}))  # fmt: skip
    values = {
        "state": state, "iteration": spec.iterations, "message": "", "updated": "2030-01-01T01:00:00+00:00",
        "wall_s": {"train": 100.0, "evaluate": 10.0}, "meta_parameters": 32_901, "best_iteration": 100,
        "best_score": mean,
    }  # fmt: skip
    write_json(path / "status.json", values | (status or {}))
    own = np.random.default_rng([spec.seed, *method.encode()])
    if accuracy is None:
        shared = np.random.default_rng([spec.seed, spec.shots]).normal(0, 0.08, tasks)
        accuracy = np.clip(np.round((mean + shared + own.normal(0, 0.04, tasks)) * 75) / 75, 0, 1)
    accuracy = np.asarray(accuracy, dtype=float)
    count = len(accuracy)
    if state == "finished":
        columns: dict[str, Any] = {
            "task": np.arange(count),
            "accuracy": accuracy,
            "nll": np.full(count, 1.2) if nll is None else nll,
        }
        if trace and method != "pixels":
            for k in range(spec.trace_steps + 1):
                columns[f"support_nll_{k}"] = start * rate**k * np.exp(own.normal(0, 0.1, count))
            for k in range(spec.trace_steps + 1):
                columns[f"grad_norm_{k}"] = 2.0 * start * rate**k * np.exp(own.normal(0, 0.1, count))
        pd.DataFrame(columns).to_csv(path / "evaluation.csv", index=False)
    steps = np.arange(1, 101)
    pd.DataFrame({"iteration": steps, "loss": 0.9 + 0.7 * np.exp(-steps / 30)}).to_csv(
        path / "training.csv", index=False
    )
    checks = np.arange(20, 101, 20)
    pd.DataFrame({
        "iteration": checks, "accuracy": mean - 0.2 * np.exp(-checks / 30), "accuracy_ci95": 0.01, "nll": 1.2,
    }).to_csv(path / "validation.csv", index=False)  # fmt: skip
    return load_run(path)
