"""The runs on the page: all in one table, then column by column and row by row, each run with its whole record."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.report import words
from benchmark.report.cell import Cell
from benchmark.report.figures.where import place
from benchmark.report.group import TableGroup
from benchmark.report.html import markup
from benchmark.report.html.markup import HtmlCell
from benchmark.report.listing import records
from benchmark.report.scope import Scope
from benchmark.runs.store import Run


@dataclass(frozen=True)
class Anchors:
    """Where on the page the runs of a cell, and of a column by its name, stand."""

    cells: Mapping[Cell, str]
    columns: Mapping[str, str]

    @classmethod
    def of(cls, groups: Sequence[TableGroup]) -> Anchors:
        columns = [(group, shots) for group in groups for shots in group.shots]
        cells = [cell for group, shots in columns for cell in group.cells(shots)]
        return cls(
            {cell: f"cell-{number}" for number, cell in enumerate(cells)},
            {place(group, shots): f"column-{number}" for number, (group, shots) in enumerate(columns)},
        )


def run_list(runs: Sequence[Run], groups: Sequence[TableGroup], anchors: Anchors) -> str:
    """All runs in a sortable table, then their records: what a number leads to."""
    if not runs:
        return ""
    identities = {run.name: f"run-{number}" for number, run in enumerate(runs)}
    header, body = records(runs)
    lines = [
        [
            HtmlCell(f"{line[1]}, seed {line[6]}", None, "short", identities[str(line[0])]),
            *(_cell(value) for value in line[2:]),
            markup.words(str(line[0]), "name"),
        ]
        for line in body
    ]
    parts = [markup.table("All runs", ["Run", *header[2:], "Folder"], lines, name="run-list")]
    shown: set[str] = set()
    for group in groups:
        for shots in group.shots:
            rows = []
            for cell in group.cells(shots):
                inside = "".join(record(run, identities[run.name]) for run in cell.runs)
                shown |= {run.name for run in cell.runs}
                rows.append(markup.details(f"{cell.label}: {words.text(cell)}", inside, anchors.cells[cell]))
            where = place(group, shots)
            parts.append(markup.details(where, "".join(rows), anchors.columns[where], scope=Scope.of(group, shots)))
    rest = "".join(record(run, identities[run.name]) for run in runs if run.name not in shown)
    return "".join(parts) + (markup.details("Trials", rest) if rest else "")


def record(run: Run, identity: str) -> str:
    """A run with the command that repeats it, its spec, its tuning, its environment and its status."""
    inside = markup.heading(3, "Command") + f"<pre>{markup.escape(shlex.join(map(str, run.command)))}</pre>"
    tables = {"Spec": run.spec, "Tuning": run.tuning, "Environment": run.environment, "Status": run.status}
    for title, values in tables.items():
        if title == "Tuning" and not values:
            continue
        inside += markup.heading(3, title)
        inside += markup.definitions((key, _plain(value)) for key, value in values.items())
    return markup.details(f"{run.name}: {run.state}", inside, identity, "record")


def _cell(value: object) -> HtmlCell:
    if isinstance(value, float):
        return markup.number(value, f"{value:,.2f}" if math.isfinite(value) else words.NONE)
    return markup.number(value, f"{value:,}") if isinstance(value, int) else markup.words(str(value))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
