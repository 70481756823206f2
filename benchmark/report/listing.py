"""All runs in a table: for ``list runs`` and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark import statistics
from benchmark.report.cell import metric, scores
from benchmark.runs.merge import load_together
from benchmark.runs.standing import state_of
from benchmark.runs.store import Run
from benchmark.screen import NARROW, warn

HEADER = ["Run", "Method", "Data set", "Ways", "Shots", "Recipe", "Seed", "State", "Accuracy, %", "Training, s"]


def readable(*results: Path) -> list[Run]:
    """The runs below `results`; those that cannot be read are named on standard error, and hide nothing else."""
    return load_together(results, lambda text: warn(f"left out: {text}"), tables=True)


def records(runs: Sequence[Run]) -> tuple[list[str], list[list[str | int | float]]]:
    """Header and one line for each run. Accuracy is nan without a result; a regression shows its loss there."""
    body: list[list[str | int | float]] = []
    for run in runs:
        spec = run.spec
        mean = statistics.task_interval(scores(run)).mean
        wall = run.status.get("wall_s")
        train = wall.get("train") if isinstance(wall, dict) else None
        state = state_of(run) + (" (loss)" if metric(run) == "nll" else "")
        body.append([
            run.name, str(spec["method"]), str(spec["dataset"]), int(spec["ways"]), int(spec["shots"]),
            str(spec["recipe"]), int(spec["seed"]), state, mean, float(train) if train is not None else float("nan"),
        ])  # fmt: skip
    return HEADER, body


def print_runs(runs: Sequence[Run], console: Console) -> None:
    """``list runs``: name, state, accuracy and training time of every run; in a narrow terminal name and accuracy."""
    if not runs:
        console.print("No runs to show.")
        return
    rich = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN)
    narrow = console.width < NARROW
    for title in ("run", "accuracy, %") if narrow else ("run", "state", "accuracy, %", "training, s"):
        rich.add_column(title, justify="right" if "," in title else "left", overflow="fold")
    for line in records(runs)[1]:
        name, state, mean, train = line[0], line[7], float(line[8]), float(line[9])
        accuracy, seconds = (f"{value:.2f}" if np.isfinite(value) else "–" for value in (mean, train))
        row = [name, state if accuracy == "–" else accuracy] if narrow else [name, state, accuracy, seconds]
        rich.add_row(*(escape(str(word)) for word in row))
    console.print(rich)
