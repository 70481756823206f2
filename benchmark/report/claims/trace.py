"""Claims about Fig. 1: what the support loss and the gradient norm do along the inner loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from benchmark import statistics
from benchmark.report.cell import Cell
from benchmark.report.claims.setting import as_published
from benchmark.report.claims.verdict import (
    FAILS,
    HOLDS,
    LEVEL,
    UNKNOWN,
    UNTESTABLE,
    Check,
    below,
    few_seeds,
    format_difference,
    join,
)
from benchmark.report.published import method_title
from benchmark.statistics import Paired

MIRROR = ("md", "md-released", "md-convex")
BASELINES = ("maml", "metasgd", "metacurvature")
STARTERS = ("maml", "metasgd")
COMPARABLE = 1.5
"""Mean initial gradient norms within this factor of one another are called comparable."""


def checks(where: str, cells: Sequence[Cell]) -> Iterator[tuple[str, Check]]:
    """(claim key, check) for every claim about the trace that these cells of one column bear on.

    Every row of mirror descent is judged. For a method that others are held against one row speaks, as its label says:
    the one with the fewest options set; of these the one with most seeds, then the first of the table.
    """
    traced = [cell for cell in cells if cell.plain and cell.traces("support_nll") is not None]
    known: dict[str, Cell] = {}
    for cell in sorted(traced, key=lambda cell: (len(cell.options), -len(cell.measured))):
        known.setdefault(cell.method, cell)
    baselines = [known[method] for method in BASELINES if method in known]
    mirror = [cell for cell in traced if cell.method in MIRROR]
    for cell in mirror if baselines else []:
        yield "faster", against(where, cell, baselines, {"": ("support_nll", left_along_the_way)})
        yield "drop", against(where, cell, baselines, {"": ("support_nll", left_after_one_step)})
        ends = {"loss": ("support_nll", at_end), "change of norm": ("grad_norm", last_change)}
        yield "end", against(where, cell, baselines, ends)
    starters = [known[method] for method in STARTERS if method in known]
    curved = [known["metacurvature"]] if "metacurvature" in known else []
    for cell in [*mirror, *curved] if starters else []:
        yield "start", against(where, cell, starters, {"": ("support_nll", at_start)}, STARTERS)
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


Measured = Mapping[str, tuple[str, Feature]]
"""What a claim is about: a name, empty where there is one alone, the recorded trace, and what is taken of it."""


def difference(a: Cell, b: Cell, column: str, feature: Feature) -> Paired:
    """`feature` of a minus that of b, paired over the common tasks of the common seeds."""
    left, right = a.traces(column), b.traces(column)
    if left is None or right is None:
        return statistics.paired([], [])
    steps = min(left.shape[1], right.shape[1])
    horizon = min(steps - 1, *(int(run.spec["steps"]) for cell in (a, b) for run in cell.measured))
    if steps < 2:
        return statistics.paired([], [])
    one, two = (feature(traces.iloc[:, :steps], horizon) for traces in (left, right))
    one, two = one.align(two, join="inner")
    return statistics.paired_over_seeds(one, two, one.index.get_level_values("seed"))


def against(
    where: str, cell: Cell, others: Sequence[Cell], measured: Measured, expected: Sequence[str] = BASELINES
) -> Check:
    """Whether everything `measured` of `cell` lies below that of every one of `others`, who should be `expected`."""
    results = {
        (name, other.label): difference(cell, other, column, feature)
        for name, (column, feature) in measured.items()
        for other in others
    }
    told = {key: f"{key[0]} {format_difference(key[1], result)}".strip() for key, result in results.items()}
    errors = {key: result.error if result.error > 0 else 1.0 for key, result in results.items()}
    worst = max(results, key=lambda key: results[key].mean / errors[key])
    evidence = "; ".join(told.values())
    absent = [method_title(method) for method in expected if method not in {other.method for other in others}]
    few = few_seeds(min(result.seeds for result in results.values()))
    verdict = UNTESTABLE if few else below({" ".join(key): result for key, result in results.items()})
    if absent and verdict != FAILS:  # one method that it does not beat refutes; those that are there do not confirm
        verdict, few = UNTESTABLE, few or f"no run of {join(absent)}"
    elsewhere = not as_published([cell, *others])
    return Check(where, cell.label, verdict, told[worst], f"{few}; {evidence}" if few else evidence, elsewhere)


def norms(where: str, cells: Sequence[Cell]) -> Check:
    """Largest over smallest mean gradient norm at k = 0, every two methods over the seeds they share."""
    means = {cell.label: found for cell in cells if (found := _starting_norms(cell)) is not None}
    subject = "methods of Fig. 1"
    if len(means) < 2 or not all((found > 0).all() for found in means.values()):
        return Check(where, subject, UNTESTABLE, "–", "no gradient norms recorded")
    whole = {label: float(found.mean()) for label, found in means.items()}
    number = f"largest / smallest = {max(whole.values()) / min(whole.values()):.2f}"
    evidence = ", ".join(f"{name} {value:.3g}" for name, value in whole.items())
    elsewhere = not as_published(cells)
    logs = []
    for (_, a), (_, b) in itertools.combinations(means.items(), 2):
        a, b = np.log(a).align(np.log(b), join="inner")
        logs.append(statistics.paired_over_seeds(a, b, a.index))
    few = few_seeds(min(log.seeds for log in logs))
    if not few and len(means) <= len(BASELINES):
        few = "needs all four methods"
    if few:
        return Check(where, subject, UNTESTABLE, number, f"{few}; {evidence}", elsewhere)
    bound = math.log(COMPARABLE)
    strict = [log.over_seeds(1 - LEVEL / len(logs)) for log in logs]
    if any(low > bound or high < -bound for low, high in strict):
        verdict = FAILS
    else:  # at twice the level: of the two bounds of a difference one at most is missed (two one-sided tests)
        inside = [log.over_seeds(1 - 2 * LEVEL) for log in logs]
        verdict = HOLDS if all(-bound < low and high < bound for low, high in inside) else UNKNOWN
    return Check(where, subject, verdict, number, evidence, elsewhere)


def _starting_norms(cell: Cell) -> pd.Series | None:
    """Mean gradient norm at k = 0 over the tasks of each seed."""
    found = cell.traces("grad_norm")
    return None if found is None else found[0].dropna().groupby(level="seed").mean()
