"""Who beats whom: every pair of rows of a table, compared task by task.

All methods meet the same tasks, so the difference between two of them is taken on each task and only then averaged.
Where methods of a column have several seeds it is judged over seeds and the tasks within them
(:func:`benchmark.statistics.paired_over_seeds`), with the spread over seeds as all methods of the column show it
(:mod:`benchmark.spread`): the test speaks of the methods. Else it is over tasks alone, and speaks of two trained
models.

Two corrections answer two questions. ``p_holm``, over all pairs of one printed table: which of all these differences
are real? ``p_best``, over the rows that compete with the best of one column: which of them may be the best one?
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmark import statistics
from benchmark.recipes import BASELINE
from benchmark.report.cell import Cell
from benchmark.report.group import TableGroup
from benchmark.spread import Spread, estimate

LEVEL = 0.05
"""A difference counts when its corrected p is below this."""

COLUMNS = [
    "dataset", "ways", "shots", "recipe", "norm", "a", "b", "difference", "low", "high", "p", "p_holm", "p_best",
    "effect", "wins", "ties", "losses", "tasks", "tasks_diverged", "seeds", "judged_over", "lower_is_better",
]  # fmt: skip


def frame(groups: Sequence[TableGroup]) -> pd.DataFrame:
    """One row for each pair (a, b) of a column with common tasks; differences a − b in the units of the table."""
    split: dict[tuple[str, int], list[TableGroup]] = {}
    for group in groups:
        split.setdefault((group.dataset, group.ways), []).append(group)
    blocks = []
    for members in split.values():
        columns = [_column(group, shots) for group in members for shots in group.shots]
        block = pd.DataFrame.from_records([record for column in columns for record in column], columns=COLUMNS)
        block["p_holm"] = statistics.holm(block["p"].to_numpy(dtype=np.float64))
        blocks.append(block)
    blocks = [block for block in blocks if len(block)]
    return pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=COLUMNS)


def _column(group: TableGroup, shots: int) -> list[dict[str, Any]]:
    """The pairs of one column, those with its best row corrected as such."""
    cells = group.cells(shots)
    spread = seed_spread(cells)
    found = (compare(group, a, b, spread) for a, b in itertools.combinations(cells, 2))
    records = [record for record in found if record is not None]
    top, baseline = _best_mean(cells), {cell.label for cell in cells if cell.method == BASELINE}
    sides = [{record["a"], record["b"]} for record in records]
    with_best = [record for record, both in zip(records, sides, strict=True) if top in both and not baseline & both]
    for record in with_best:
        half = np.float64(record["p"]) / 2
        one_sided = half if better(record) == ("a" if record["a"] == top else "b") else 1 - half
        record["p_best"] = float(np.minimum(1.0, len(with_best) * one_sided))  # nan stays nan
    return records


def seed_spread(cells: Sequence[Cell]) -> dict[str, Spread]:
    """How much seeds change the rows of a column, by metric; none where no row has several seeds to compare."""
    found = {}
    for metric in {cell.metric for cell in cells if cell.measured}:
        scores = {cell.label: cell.by_task for cell in cells if cell.measured and cell.metric == metric}
        spread = estimate(pd.DataFrame(scores))
        if spread is not None:
            found[metric] = spread
    return found


def compare(group: TableGroup, a: Cell, b: Cell, spread: Mapping[str, Spread] | None = None) -> dict[str, Any] | None:
    """The comparison of two cells on their common (seed, task)s; None where there are none or metrics differ.

    `spread` is that of their column (:func:`seed_spread`); without it they speak for themselves alone.
    """
    if not a.measured or not b.measured or a.metric != b.metric:
        return None
    left, right = a.by_task.align(b.by_task, join="inner")
    if left.empty:
        return None
    known = spread[a.metric].of_difference(a.label, b.label) if spread and a.metric in spread else None
    result = statistics.paired_over_seeds(left, right, left.index.get_level_values("seed"), spread=known)
    return {
        "dataset": group.dataset, "ways": group.ways, "shots": a.shots, "recipe": group.recipe, "norm": group.norm,
        "a": a.label, "b": b.label, "difference": result.mean, "low": result.low, "high": result.high, "p": result.p,
        "p_holm": math.nan, "p_best": math.nan, "effect": result.effect, "wins": result.wins, "ties": result.ties,
        "losses": result.losses, "tasks": result.count, "tasks_diverged": result.excluded, "seeds": result.seeds,
        "judged_over": "seeds and tasks" if math.isfinite(result.error) else "tasks",
        "lower_is_better": a.metric == "nll",
    }  # fmt: skip


def outcome(row: pd.Series) -> str:
    """``a``, ``b`` or an empty string: which of the two is better beyond chance."""
    return better(row) if row["p_holm"] < LEVEL else ""


def better(row: Mapping[str, Any] | pd.Series) -> str:
    """``a`` or ``b``: which of the two has the better mean over their common tasks, chance or not."""
    return "a" if (row["difference"] > 0) != bool(row["lower_is_better"]) else "b"


def select(pairs: pd.DataFrame, group: TableGroup, shots: int) -> pd.DataFrame:
    """The pairs of one column."""
    return pairs[
        (pairs["dataset"] == group.dataset)
        & (pairs["ways"] == group.ways)
        & (pairs["recipe"] == group.recipe)
        & (pairs["norm"] == group.norm)
        & (pairs["shots"] == shots)
    ]


def best(pairs: pd.DataFrame, group: TableGroup, shots: int) -> set[str]:
    """Labels of the rows that may be the best of a column: its best mean, and all that this does not beat.

    The best mean is chosen after the fact, so each row is tested, one-sided, at :data:`LEVEL` over the number of rows
    that compete with it (multiple comparisons with the best, Hsu 1981, by Bonferroni): the method that is truly best is
    among these rows in 95 % of all cases. The baseline does not compete.
    """
    cells = group.cells(shots)
    top = _best_mean(cells)
    beaten = set()
    for _, row in select(pairs, group, shots).iterrows():
        if top in (row["a"], row["b"]):
            top_is, other = ("a", "b") if row["a"] == top else ("b", "a")
            if row["p_best"] < LEVEL or outcome(row) == top_is:
                beaten.add(str(row[other]))
    return {cell.label for cell in cells if cell.score and cell.method != BASELINE} - beaten


def _best_mean(cells: Sequence[Cell]) -> str:
    """Label of the row with the best mean; empty where none was measured."""
    known = {cell.label: cell.score.mean for cell in cells if cell.score and cell.method != BASELINE}
    lower = all(cell.metric == "nll" for cell in cells if cell.score)
    return (min if lower else max)(known, key=lambda label: known[label], default="")
