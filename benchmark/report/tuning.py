"""Where tuned rows have their values from: how many trials, what was chosen, and whether it lies at an edge.

All of it is in the runs: each keeps the record that its tuning gave it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from benchmark.report.group import TableGroup
from benchmark.report.published import dataset_title
from benchmark.report.words import NONE, plus_minus

HEADER = ["Row", "Shots", "Tuned at", "Trials", "Meta-steps", "α", "Meta-lr", "Geometry-lr"]
HEADER += ["At an edge", "Validation, %"]
NAMES = {"alpha": "α", "meta_lr": "meta-lr", "geometry_lr": "geometry-lr"}
NOTE = (
    "Every method met the same points of one search space; the best meta-validation accuracy chose, test classes were "
    "not read. At an edge: the smallest or largest value drawn, so that a wider space may hold a better one. "
    "Geometry-lr, a factor on meta-lr, is without effect where only the start is learned."
)


def grids(groups: Sequence[TableGroup]) -> list[tuple[str, list[list[str]]]]:
    """For each group with tuned runs a title and the lines below :data:`HEADER`, one for each row, shots and tuning."""
    found = []
    for group in groups:
        lines = []
        for row in group.rows:
            for shots, cell in sorted(row.cells.items()):
                records = {json.dumps(run.tuning, sort_keys=True): run.tuning for run in cell.runs if run.tuning}
                lines += [[row.label, str(shots), *_line(record)] for record in records.values()]
        if lines:
            found.append((f"{group.ways}-way {dataset_title(group.dataset)}, {group.protocol}", lines))
    return found


def markdown(groups: Sequence[TableGroup]) -> str:
    """``tuning.md``; empty where nothing was tuned."""
    from benchmark.report.formats import escape_markdown, markdown_table

    found = grids(groups)
    if not found:
        return ""
    parts = ["# Tuning"]
    for title, lines in found:
        parts += [f"## {escape_markdown(title)}", markdown_table(HEADER, lines)]
    return "\n\n".join([*parts, escape_markdown(NOTE)]) + "\n"


def _line(record: dict[str, Any]) -> list[str]:
    edge = record.get("edge")
    edges = [f"{NAMES.get(name, name)} {side}" for name, side in edge.items()] if isinstance(edge, dict) else []
    accuracy, half = _number(record.get("accuracy")), _number(record.get("accuracy_ci95"))
    return [
        f"{record.get('shots', NONE)}-shot",
        str(record.get("trials", NONE)),
        str(record.get("iterations", NONE)),
        *(_shown(record.get(name)) for name in NAMES),
        ", ".join(edges) or NONE,
        plus_minus(100 * accuracy, 100 * half),
    ]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else NONE
