"""Claims about Fig. 1: what the support loss and the gradient norm do along the inner loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from benchmark import statistics
from benchmark.report.cell import Cell
from benchmark.report.claims.verdict import FAILS, HOLDS, UNKNOWN, Check, below, format_difference
from benchmark.statistics import Paired

MIRROR = ("md", "md-released", "md-convex")
BASELINES = ("maml", "metasgd", "metacurvature")
COMPARABLE = 1.5
"""Mean initial gradient norms within this factor of one another are called comparable."""


def checks(where: str, cells: Sequence[Cell]) -> Iterator[tuple[str, Check]]:
    """(claim key, check) for every claim about the trace that these cells of one column bear on."""
    known = {cell.method: cell for cell in cells if cell.plain and cell.traces("support_nll") is not None}
    baselines = [known[method] for method in BASELINES if method in known]
    for method in MIRROR:
        if method in known and baselines:
            cell = known[method]
            yield "faster", against(where, cell, baselines, "support_nll", left_along_the_way)
            yield "drop", against(where, cell, baselines, "support_nll", left_after_one_step)
            yield "end", ending(where, cell, baselines)
    starters = [known[method] for method in ("maml", "metasgd") if method in known]
    for method in (*MIRROR, "metacurvature"):
        if method in known and starters:
            yield "start", against(where, known[method], starters, "support_nll", at_start)
    four = [known[method] for method in (*BASELINES, "md") if method in known]
    if len(four) > 1 and "md" in known:
        yield "norms", norms(where, four)


Feature = Callable[[pd.DataFrame, int], pd.Series]
"""(traces [tasks, K+1], training horizon) → one number a task."""


def at_start(traces: pd.DataFrame, horizon: int) -> pd.Series:
    """The value at k = 0."""
    return traces[0]


def left_along_the_way(traces: pd.DataFrame, horizon: int) -> pd.Series:
    """Mean over k = 1 … K of Lᵏ/L⁰: how fast the loss falls, wherever it starts."""
    return traces.loc[:, 1:horizon].div(traces[0], axis=0).mean(axis=1, skipna=False)


def left_after_one_step(traces: pd.DataFrame, horizon: int) -> pd.Series:
    """L¹/L⁰: the share of the start that step 1 leaves."""
    return traces[1] / traces[0]


def at_end(traces: pd.DataFrame, horizon: int) -> pd.Series:
    """The value at the last recorded step."""
    return traces[traces.columns[-1]]


def last_change(traces: pd.DataFrame, horizon: int) -> pd.Series:
    """|change| over the last recorded step."""
    return (traces[traces.columns[-1]] - traces[traces.columns[-2]]).abs()


def difference(a: Cell, b: Cell, column: str, feature: Feature) -> Paired:
    """`feature` of a minus that of b, paired over the common tasks."""
    left, right = a.traces(column), b.traces(column)
    if left is None or right is None:
        return statistics.paired([], [])
    steps = min(left.shape[1], right.shape[1])
    horizon = min(steps - 1, *(int(run.spec["steps"]) for cell in (a, b) for run in cell.measured))
    if steps < 2:
        return statistics.paired([], [])
    one, two = (feature(traces.iloc[:, :steps], horizon) for traces in (left, right))
    one, two = one.align(two, join="inner")
    return statistics.paired(one.to_numpy(), two.to_numpy())


def against(where: str, cell: Cell, others: Sequence[Cell], column: str, feature: Feature) -> Check:
    """Whether `feature` of `cell` lies below that of every one of `others`."""
    results = {other.label: difference(cell, other, column, feature) for other in others}
    worst = max(results.items(), key=lambda item: item[1].mean)
    evidence = "; ".join(format_difference(name, result) for name, result in results.items())
    return Check(where, cell.label, below(results.values()), format_difference(*worst), evidence)


def ending(where: str, cell: Cell, others: Sequence[Cell]) -> Check:
    """Lower: the last loss. Steadier: the last change of the gradient norm. Both must hold."""
    lower = against(where, cell, others, "support_nll", at_end)
    steadier = against(where, cell, others, "grad_norm", last_change)
    verdicts = {lower.verdict, steadier.verdict}
    verdict = FAILS if FAILS in verdicts else UNKNOWN if UNKNOWN in verdicts else HOLDS
    number = f"lower: {lower.verdict} ({lower.number}); steadier: {steadier.verdict} ({steadier.number})"
    return Check(where, cell.label, verdict, number, f"loss {lower.evidence}; change of norm {steadier.evidence}")


def norms(where: str, cells: Sequence[Cell]) -> Check:
    """Largest over smallest mean gradient norm at k = 0."""
    means = {cell.label: float(found.mean[0]) for cell in cells if (found := cell.band("grad_norm")) and found.count}
    if len(means) < 2 or not min(means.values()) > 0:
        return Check(where, "methods of Fig. 1", UNKNOWN, "–", "no gradient norms recorded")
    ratio = max(means.values()) / min(means.values())
    verdict = HOLDS if np.isfinite(ratio) and ratio <= COMPARABLE else FAILS
    evidence = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
    return Check(where, "methods of Fig. 1", verdict, f"largest / smallest = {ratio:.2f}", evidence)
