"""Who beats whom: every pair of rows of a table, compared task by task.

All methods meet the same tasks, so the difference between two of them is taken on each task and only then averaged
(:func:`benchmark.statistics.paired`). p-values are corrected together over all pairs of one printed table (Holm). With
several seeds the tasks of all common seeds are pooled: such a test speaks of these trained models. What another
training run would change is the interval over seeds, given beside it where there are seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark import statistics
from benchmark.report.cell import Cell
from benchmark.report.formats import markdown_table
from benchmark.report.group import TableGroup
from benchmark.report.table import tables
from benchmark.report.words import NONE

LEVEL = 0.05
"""A difference counts when its Holm-corrected p is below this."""

COLUMNS = [
    "dataset", "ways", "shots", "recipe", "norm", "a", "b", "difference", "low", "high", "p", "p_holm", "effect",
    "wins", "ties", "losses", "tasks", "tasks_diverged", "seeds", "half_seeds", "lower_is_better",
]  # fmt: skip


def frame(groups: Sequence[TableGroup]) -> pd.DataFrame:
    """One row for each pair (a, b) of a column with common tasks; differences a − b in the units of the table."""
    blocks = []
    for table in tables(groups):
        records = [
            record
            for group in table.groups
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
    result = statistics.paired(left.to_numpy(), right.to_numpy())
    by_seed = (left - right).groupby(level="seed").mean()
    return {
        "dataset": group.dataset, "ways": group.ways, "shots": a.shots, "recipe": group.recipe, "norm": group.norm,
        "a": a.label, "b": b.label, "difference": result.mean, "low": result.low, "high": result.high, "p": result.p,
        "p_holm": math.nan, "effect": result.effect, "wins": result.wins, "ties": result.ties,
        "losses": result.losses, "tasks": result.count, "tasks_diverged": result.excluded, "seeds": len(by_seed),
        "half_seeds": statistics.seed_interval(by_seed.to_numpy()).half, "lower_is_better": a.metric == "nll",
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


def matrix(pairs: pd.DataFrame, group: TableGroup, shots: int) -> tuple[list[str], list[list[tuple[float, str]]]]:
    """Labels and, for each (row, column), the difference row − column and ``beats``, ``loses`` or ``even``.

    A place without a comparison holds nan and an empty word.
    """
    chosen = select(pairs, group, shots)
    present = [cell.label for cell in group.cells(shots) if cell.label in {*chosen["a"], *chosen["b"]}]
    place = {label: index for index, label in enumerate(present)}
    body: list[list[tuple[float, str]]] = [[(math.nan, "")] * len(present) for _ in present]
    for _, row in chosen.iterrows():
        i, j, better = place[row["a"]], place[row["b"]], outcome(row)
        body[i][j] = (float(row["difference"]), {"a": "beats", "b": "loses", "": "even"}[better])
        body[j][i] = (-float(row["difference"]), {"a": "loses", "b": "beats", "": "even"}[better])
    return present, body


SIGNS = {"beats": "▲", "loses": "▼", "even": "="}


def p_text(p: float) -> str:
    """A p-value in two digits; what lies below double precision's reach of a difference as a bound."""
    return "< 1e-16" if p < 1e-16 else f"{p:.2g}"


def entry(difference: float, word: str) -> str:
    """``▲ +2.10``: beats by that much; ``▼`` loses, ``=`` no difference beyond chance."""
    return f"{SIGNS[word]} {difference:+.2f}" if word else NONE


def markdown(groups: Sequence[TableGroup], pairs: pd.DataFrame) -> str:
    """All matrices in Markdown."""
    parts = ["# Who beats whom"]
    for group in groups:
        for shots in group.shots:
            labels, body = matrix(pairs, group, shots)
            if not labels:
                continue
            title = f"{group.ways}-way {shots}-shot {group.title}, {group.protocol}"
            lines = [[label, *(entry(*place) for place in line)] for label, line in zip(labels, body, strict=True)]
            parts += [f"## {title}", markdown_table(["row − column", *labels], lines)]
    if len(parts) == 1:
        return parts[0] + "\n\nNo two rows share a task.\n"
    parts.append(NOTE)
    return "\n\n".join(parts) + "\n"


NOTE = (
    "Mean difference row − column over common tasks, in the units of the table. ▲ the row is better, ▼ the column is "
    "better, = no difference beyond chance: paired t-test, Holm-corrected over all pairs of the data set, level "
    f"{LEVEL}. Bootstrap intervals, p-values, effect sizes and wins are in pairs.csv."
)
