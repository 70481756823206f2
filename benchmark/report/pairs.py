"""Who beats whom: every pair of rows of a table, compared task by task.

All methods meet the same tasks, so the difference between two of them is taken on each task and only then averaged.
With several seeds it is judged over seeds and the tasks within them (:func:`benchmark.statistics.paired_over_seeds`):
the test speaks of the methods. With one seed it is over tasks alone, and speaks of two trained models. p-values are
corrected together over all pairs of one printed table (Holm).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmark import statistics
from benchmark.recipes import BASELINE
from benchmark.report.cell import Cell
from benchmark.report.group import TableGroup

LEVEL = 0.05
"""A difference counts when its Holm-corrected p is below this."""

COLUMNS = [
    "dataset", "ways", "shots", "recipe", "norm", "a", "b", "difference", "low", "high", "p", "p_holm", "effect",
    "wins", "ties", "losses", "tasks", "tasks_diverged", "seeds", "judged_over", "lower_is_better",
]  # fmt: skip


def frame(groups: Sequence[TableGroup]) -> pd.DataFrame:
    """One row for each pair (a, b) of a column with common tasks; differences a − b in the units of the table."""
    split: dict[tuple[str, int], list[TableGroup]] = {}
    for group in groups:
        split.setdefault((group.dataset, group.ways), []).append(group)
    blocks = []
    for members in split.values():
        records = [
            record
            for group in members
            for shots in group.shots
            for a, b in itertools.combinations(group.cells(shots), 2)
            if (record := compare(group, a, b)) is not None
        ]
        block = pd.DataFrame.from_records(records, columns=COLUMNS)
        block["p_holm"] = statistics.holm(block["p"].to_numpy(dtype=np.float64))
        blocks.append(block)
    blocks = [block for block in blocks if len(block)]
    return pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=COLUMNS)


def compare(group: TableGroup, a: Cell, b: Cell) -> dict[str, object] | None:
    """The comparison of two cells on their common (seed, task)s; None where there are none or metrics differ."""
    if not a.measured or not b.measured or a.metric != b.metric:
        return None
    left, right = a.by_task.align(b.by_task, join="inner")
    if left.empty:
        return None
    result = statistics.paired_over_seeds(left, right, left.index.get_level_values("seed"))
    return {
        "dataset": group.dataset, "ways": group.ways, "shots": a.shots, "recipe": group.recipe, "norm": group.norm,
        "a": a.label, "b": b.label, "difference": result.mean, "low": result.low, "high": result.high, "p": result.p,
        "p_holm": math.nan, "effect": result.effect, "wins": result.wins, "ties": result.ties,
        "losses": result.losses, "tasks": result.count, "tasks_diverged": result.excluded, "seeds": result.seeds,
        "judged_over": "seeds and tasks" if result.seeds > 1 else "tasks", "lower_is_better": a.metric == "nll",
    }  # fmt: skip


def outcome(row: pd.Series) -> str:
    """``a``, ``b`` or an empty string: which of the two is better beyond chance."""
    if not row["p_holm"] < LEVEL:
        return ""
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
    """Labels of the row with the best mean and of its ties: all that it does not beat in `pairs`; no baseline."""
    known = {c.label: c.score.mean for c in group.cells(shots) if c.score and c.method != BASELINE}
    if not known:
        return set()
    lower = all(cell.metric == "nll" for cell in group.cells(shots) if cell.score)
    top = (min if lower else max)(known, key=lambda label: known[label])
    return known.keys() - set(_beaten(select(pairs, group, shots), top))


def _beaten(pairs: pd.DataFrame, label: str) -> Iterator[str]:
    for _, row in pairs.iterrows():
        better = outcome(row)
        if better and row[better] == label:
            yield str(row["b" if better == "a" else "a"])
