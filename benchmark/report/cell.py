"""What one row measured at one number of shots: the runs that differ by seed alone, read together."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark import statistics
from benchmark.recipes import BASELINE
from benchmark.report.published import RECONSTRUCTED_WITHOUT_CARD
from benchmark.runs.store import Run
from benchmark.statistics import Band, Interval

NEUTRAL = {"adapt": "all"}
"""Options of every method whose usual value needs no mention."""

IN_PRINT = {(method, "adapt"): "[!n]*" for method in ("mamlpp", "alfa", "alfa-released")}
"""(method, option) whose value in the method's own paper is another one than the usual."""

EXACT = "exact"
"""The estimator whose meta-gradient is whole; any other is named."""

PUBLISHED_NORM = "batch"
"""How the literature normalises query images; any other norm is named and stands in a column of its own."""

TRACES = ("support_nll", "grad_norm")
"""What is recorded at every inner step."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One row at one number of shots: the runs that differ by seed alone."""

    method: str
    label: str
    shots: int
    runs: tuple[Run, ...]

    @property
    def options(self) -> dict[str, Any]:
        """The method's options that were given another value than every method's usual one."""
        return own_options(self.runs[0])

    @property
    def plain(self) -> bool:
        """Its method as the literature means it, see :func:`is_plain`."""
        return all(is_plain(run) for run in self.runs)

    @functools.cached_property
    def measured(self) -> tuple[Run, ...]:
        """Runs with a per-task evaluation in which at least one task is finite."""
        return tuple(run for run in self.runs if run.evaluation is not None and np.isfinite(scores(run)).any())

    @property
    def diverged(self) -> int:
        """Runs that diverged: in training, or on every test task."""
        return sum(
            run.state == "diverged" or (run.evaluation is not None and not np.isfinite(scores(run)).any())
            for run in self.runs
        )

    @property
    def unfinished(self) -> int:
        """Runs that have no result yet, or none because they failed."""
        return len(self.runs) - len(self.measured) - self.diverged

    @functools.cached_property
    def metric(self) -> str:
        """``accuracy``, or ``nll`` where the task is a regression and has none."""
        return "nll" if self.measured and all(metric(run) == "nll" for run in self.measured) else "accuracy"

    @functools.cached_property
    def score(self) -> Interval | None:
        """Mean over seeds of the mean over tasks, ± the half-width of one seed's tasks (root mean square over seeds).

        In the units of the table: accuracy in percent, or nll in nats. None without a measured run.
        """
        parts = [statistics.task_interval(scores(run)) for run in self.measured]
        if not parts:
            return None
        mean = float(np.mean([part.mean for part in parts]))
        half = float(np.sqrt(np.mean([part.half**2 for part in parts])))
        return Interval(mean, half, sum(part.count for part in parts), sum(part.excluded for part in parts))

    @functools.cached_property
    def over_seeds(self) -> Interval | None:
        """Mean and Student interval over the seeds' means, in the units of the table."""
        means = [statistics.task_interval(scores(run)).mean for run in self.measured]
        return statistics.seed_interval(means) if means else None

    @functools.cached_property
    def spread(self) -> float:
        """Sample standard deviation of the seeds' means, in the units of the table; nan with fewer than two seeds."""
        means = [statistics.task_interval(scores(run)).mean for run in self.measured]
        return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")

    @functools.cached_property
    def _traces(self) -> dict[str, pd.DataFrame | None]:
        return {column: self._joined(column) for column in TRACES}

    @functools.cached_property
    def _bands(self) -> dict[str, Band]:
        return {name: statistics.band(found.to_numpy()) for name, found in self._traces.items() if found is not None}

    def _joined(self, column: str) -> pd.DataFrame | None:
        parts = {}
        for run in self.measured:
            found = trace(run, column)
            if found is not None and run.evaluation is not None:
                index = pd.Index(run.evaluation["task"], name="task")
                parts[int(run.spec["seed"])] = pd.DataFrame(found, index=index)
        if not parts:
            return None
        return pd.concat(parts, names=["seed"], join="inner")  # the steps that all seeds recorded

    def traces(self, column: str) -> pd.DataFrame | None:
        """The trace ``support_nll`` or ``grad_norm`` of every task, [(seed, task), K+1]; None where not recorded."""
        return self._traces[column]

    def band(self, column: str) -> Band | None:
        """The trace over all tasks of all seeds, with its band; None where it was not recorded."""
        return self._bands.get(column)

    @functools.cached_property
    def by_task(self) -> pd.Series:
        """Scores indexed by (seed, task), what pairs two cells; non-finite tasks included."""
        parts = {}
        for run in self.measured:
            table = run.evaluation
            assert table is not None  # what `measured` means
            parts[int(run.spec["seed"])] = pd.Series(scores(run), index=pd.Index(table["task"], name="task"))
        if not parts:
            return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []], names=["seed", "task"]))
        return pd.concat(parts, names=["seed"])

    @property
    def meta_parameters(self) -> float:
        """The number of meta-parameters, mean over the runs that recorded it; nan if none did."""
        found = [run.status.get("meta_parameters") for run in self.runs]
        known = [value for value in found if isinstance(value, int | float) and np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")


def metric(run: Run) -> str:
    """``nll`` for a regression (no task has an accuracy, yet losses are finite), else ``accuracy``."""
    table = run.evaluation
    if table is None:
        return "accuracy"
    return "nll" if table["accuracy"].isna().all() and np.isfinite(table["nll"]).any() else "accuracy"


def scores(run: Run) -> NDArray[np.float64]:
    """Per-task scores [T] in the units of the table; nan on every task where accuracy or loss is not finite."""
    table = run.evaluation
    if table is None:
        return np.empty(0)
    nll = table["nll"].to_numpy(dtype=np.float64) if "nll" in table else np.zeros(len(table))
    if metric(run) == "nll":
        return np.where(np.isfinite(nll), nll, np.nan)
    accuracy = table["accuracy"].to_numpy(dtype=np.float64)
    baseline = run.spec["method"] == BASELINE  # it has no likelihood
    return np.where(np.isfinite(accuracy) & (np.isfinite(nll) | baseline), 100.0 * accuracy, np.nan)


def trace(run: Run, column: str) -> NDArray[np.float64] | None:
    """Per-task trace [T, K+1] of ``support_nll`` or ``grad_norm``; None where the run has none."""
    table = run.evaluation
    if table is None:
        return None
    names: list[str] = []
    while f"{column}_{len(names)}" in table:
        names.append(f"{column}_{len(names)}")
    return table[names].to_numpy(dtype=np.float64) if names else None


def own_options(run: Run) -> dict[str, Any]:
    """The options of a run but those of every method at their usual value, which are as good as not given."""
    return {key: value for key, value in (run.spec.get("options") or {}).items() if NEUTRAL.get(key) != value}


def is_reconstructed(run: Run) -> bool:
    """Whether no public text settles the run's method."""
    return bool(run.card.get("reconstructed", run.spec["method"] in RECONSTRUCTED_WITHOUT_CARD))


def inexact(run: Run) -> tuple[str, ...]:
    """What of the meta-gradient is not whole: the estimator, the meta-steps that were first-order before it."""
    estimator, first = run.spec.get("estimator", EXACT), int(run.spec.get("first_order_for", 0))
    return (
        *((f"estimator={estimator}",) if estimator != EXACT else ()),
        *((f"first_order_for={first}",) if first else ()),
    )


def is_plain(run: Run) -> bool:
    """Whether the run is its method as the literature means it.

    Every parameter adapts, or those that do in its paper; the meta-gradient is whole, and query images are normalised
    by their own batch.
    """
    options = run.spec.get("options") or {}
    as_published = not inexact(run) and run.spec.get("norm", PUBLISHED_NORM) == PUBLISHED_NORM
    method = str(run.spec["method"])
    usual = {key: (value, IN_PRINT.get((method, key), value)) for key, value in NEUTRAL.items()}
    return as_published and all(options.get(key, values[0]) in values for key, values in usual.items())
