"""Who beats whom, as a matrix: Markdown, and what the page shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from benchmark.report.formats import markdown_table
from benchmark.report.group import TableGroup
from benchmark.report.pairs import LEVEL, outcome, select
from benchmark.report.words import NONE, signed


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
    """A p-value in two digits; what lies below double precision's reach of a difference as a bound; a dash for none."""
    if math.isnan(p):
        return NONE
    return "< 1e-16" if p < 1e-16 else f"{p:.2g}"


def entry(difference: float, word: str) -> str:
    """``▲ +2.10``: beats by that much; ``▼`` loses, ``=`` no difference beyond chance."""
    return f"{SIGNS[word]} {signed(difference, '.2f')}" if word else NONE


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
    "better, = no difference beyond chance, Holm-corrected over all pairs of the data set, level "
    f"{LEVEL}. Where rows of a column have several seeds a difference is judged over seeds and the tasks within them, "
    "with the spread over seeds as all rows of the column show it; else by the paired t-test over tasks, and then it "
    "is one between two trained models, not between two methods. p (best), for the pairs of the best mean of a column, "
    "is one-sided and corrected over the rows that compete with it: it decides what is bold in the table. Intervals, "
    "p-values, effect sizes and wins are in pairs.csv."
)
