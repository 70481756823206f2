"""Table 1: method × shots, published numbers beside ours.

One table holds one data set and number of ways. For each number of shots it shows what the papers print, then one
column for each recipe and norm that was run. The *long form* has one line for each method, shots, recipe and norm at
full precision: the CSV. The *wide form* prints the same numbers rounded: Markdown and LaTeX
(:mod:`benchmark.report.formats`) and page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from benchmark import statistics
from benchmark.report.cell import FLOOR, PUBLISHED_NORM, Cell
from benchmark.report.group import TableGroup
from benchmark.report.published import (
    RECONSTRUCTED,
    Reference,
    dataset_title,
    method_order,
    reference,
)
from benchmark.report.words import NONE, counted, over_seeds, plus_minus, spread, text


@dataclass(frozen=True)
class Table:
    """The groups of one data set and number of ways, side by side."""

    dataset: str
    ways: int
    groups: tuple[TableGroup, ...]
    step_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of one inner step by method, where it was timed."""

    @property
    def title(self) -> str:
        unit = "loss" if self.metric == "nll" else "accuracy in %"
        return f"{self.ways}-way {dataset_title(self.dataset)}, {unit}"

    @property
    def metric(self) -> str:
        cells = [cell for group in self.groups for row in group.rows for cell in row.cells.values() if cell.score]
        return "nll" if cells and all(cell.metric == "nll" for cell in cells) else "accuracy"

    @property
    def shots(self) -> list[int]:
        return sorted({shots for group in self.groups for shots in group.shots})

    @property
    def reference(self) -> Reference:
        return reference(self.dataset, self.ways)

    @property
    def labels(self) -> list[tuple[str, str]]:
        """(method, label) of every row of any recipe, in the order of the published table."""
        found = {row.label: row.method for group in self.groups for row in group.rows}
        return sorted(((method, label) for label, method in found.items()), key=lambda p: (*method_order(p[0]), p[1]))

    def plain(self, label: str) -> bool:
        """Whether this row is, in some column, the method that the paper printed a number for."""
        return any(row.plain for group in self.groups for row in group.rows if row.label == label)

    def reconstructed(self, label: str) -> bool:
        """Whether no public text settles the method of this row."""
        return any(row.reconstructed for group in self.groups for row in group.rows if row.label == label)

    def meta_parameters(self, label: str) -> list[int]:
        """The numbers of meta-parameters that the runs of this row recorded."""
        rows = [row for group in self.groups for row in group.rows if row.label == label]
        cells = [cell for row in rows for cell in row.cells.values()]
        counts = {run.status.get("meta_parameters") for cell in cells for run in cell.runs}
        return sorted(count for count in counts if isinstance(count, int))

    def train_ms(self, label: str) -> list[float]:
        """Wall time of a meta-step in training, ms, in the order of the columns; without those that are unknown."""
        cells = [self.cell(group, label, shots) for shots in self.shots for group in self.groups]
        return [cell.train_ms for cell in cells if cell and math.isfinite(cell.train_ms)]

    def cell(self, group: TableGroup, label: str, shots: int) -> Cell | None:
        """The cell of that row, or None where it was not run."""
        return next((row.cells.get(shots) for row in group.rows if row.label == label), None)


def tables(groups: Sequence[TableGroup], step_ms: Mapping[str, float] | None = None) -> list[Table]:
    """One table for each data set and number of ways."""
    split: dict[tuple[str, int], list[TableGroup]] = {}
    for group in groups:
        split.setdefault((group.dataset, group.ways), []).append(group)
    return [Table(*key, tuple(members), step_ms or {}) for key, members in split.items()]


def frame(groups: Sequence[TableGroup], step_ms: Mapping[str, float] | None = None) -> pd.DataFrame:
    """The long form: one row for each data set, ways, recipe, norm, method and shots, at full precision.

    Accuracies are percent. ``half_tasks`` is the half-width over the tasks of one seed, ``half_seeds`` over seeds.
    ``meta_step_ms`` is the wall time of a meta-step in training, ``inner_step_ms`` (`step_ms`) of one timed inner step.
    """
    records = []
    for group in groups:
        printed = reference(group.dataset, group.ways)
        for row in group.rows:
            for shots, cell in sorted(row.cells.items()):
                number = printed.numbers.get((row.method, shots)) if row.plain else None
                score, seeds = cell.score, cell.over_seeds
                records.append({
                    "dataset": group.dataset,
                    "ways": group.ways,
                    "shots": shots,
                    "recipe": group.recipe,
                    "norm": group.norm,
                    "method": row.method,
                    "label": row.label,
                    "metric": cell.metric,
                    "published_on": printed.title if number else None,
                    "published": number.mean if number else None,
                    "published_half": number.half if number else None,
                    "mean": score.mean if score else None,
                    "half_tasks": score.half if score else None,
                    "half_seeds": seeds.half if seeds else None,
                    "best_or_tied": row.label in group.best(shots),
                    "tasks": score.count if score else 0,
                    "tasks_diverged": score.excluded if score else 0,
                    "seeds": len({int(run.spec["seed"]) for run in cell.measured}),
                    "runs": len(cell.runs),
                    "runs_diverged": cell.diverged,
                    "runs_unfinished": cell.unfinished,
                    "meta_parameters": cell.mean_status("meta_parameters"),
                    "train_wall_s": cell.mean_status("wall_s", "train"),
                    "evaluate_wall_s": cell.mean_status("wall_s", "evaluate"),
                    "meta_step_ms": cell.train_ms,
                    "inner_step_ms": (step_ms or {}).get(row.method),
                    "remark": RECONSTRUCTED if row.reconstructed else None,
                })  # fmt: skip
    return pd.DataFrame.from_records(records)


@dataclass(frozen=True)
class Place:
    """One place of the wide form: what is printed, the number behind it at full precision, and whether it is best."""

    text: str
    value: float | None = None
    best: bool = False


def grid(table: Table) -> tuple[list[str], list[list[Place]]]:
    """Header and body of the wide form; best rows and their ties are marked in each column of ours."""
    columns: list[tuple[str, list[Place]]] = [("Method", [Place(_name(table, label)) for _, label in table.labels])]
    printed = table.reference
    for shots in table.shots:
        if printed.numbers:
            found = [
                printed.numbers.get((method, shots)) if table.plain(label) else None for method, label in table.labels
            ]
            places = [Place(plus_minus(each.mean, each.half), each.mean) if each else Place(NONE) for each in found]
            columns.append((f"{shots}-shot, paper ({printed.title})", places))
        for group in table.groups:
            best, places = group.best(shots), []
            for _, label in table.labels:
                cell = table.cell(group, label, shots)
                value = cell.score.mean if cell and cell.score else None
                places.append(Place(text(cell, group.seeds), value, label in best))
            columns.append((column_title(group, shots), places))
    counts = [table.meta_parameters(label) for _, label in table.labels]
    columns.append(("Meta-parameters", [Place(counted(each), each[0] if each else None) for each in counts]))
    times = [table.train_ms(label) for _, label in table.labels]
    if any(times):
        shown = [Place(spread(each), each[0] if each else None) for each in times]
        columns.append(("Meta-step, ms", shown))
    steps = [table.step_ms.get(method) for method, _ in table.labels]
    if any(steps):
        columns.append(("Inner step, ms", [Place(f"{ms:.3g}", ms) if ms else Place(NONE) for ms in steps]))
    return [title for title, _ in columns], [
        list(line) for line in zip(*(places for _, places in columns), strict=True)
    ]


NORMS = {
    "support": "Support norm: query images are normalised by the support set's statistics, and no prediction depends "
    "on the other query images. Elsewhere they are normalised by their own batch, as in the papers.",
    "group": "Group norm: each image is normalised by itself, and no prediction depends on the other images.",
}
"""What a column of another norm than the papers' means."""


def column_title(group: TableGroup, shots: int) -> str:
    """``5-shot, ours (controlled recipe, 3 seeds)``."""
    seeds = f", {group.seeds} seeds" if group.seeds > 1 else ""
    return f"{shots}-shot, ours ({group.protocol}{seeds})"


def _name(table: Table, label: str) -> str:
    return f"{label} *" if table.reconstructed(label) else label


def notes(table: Table) -> list[str]:
    """What the table's signs mean, in whole sentences."""
    lines = [
        "Ours: mean ± 1.96·σ/√T over the T test tasks of one seed (population σ); all methods of a column meet the "
        "same tasks. Bold: the best mean and every row whose interval overlaps it; the floor does not compete.",
    ]
    if table.reference.numbers:
        where = table.reference.title
        other = where != dataset_title(table.dataset)
        lines.append(
            f"Paper: the published number as printed, on {where}"
            + (", another data set: compare the order of the methods, not the level." if other else ".")
            + " The papers mix network widths, test protocols and meta-optimizers."
        )
    norms = [group.norm for group in table.groups if group.norm != PUBLISHED_NORM]
    lines += [NORMS[norm] for norm in dict.fromkeys(norms)]
    methods = {method for method, _ in table.labels}
    if any(table.reconstructed(label) for _, label in table.labels):
        lines.append(f"* {RECONSTRUCTED}.")
    if FLOOR in methods:
        lines.append("Floor: nearest class mean on raw pixels, nothing is trained.")
    if any(len(table.train_ms(label)) > 1 for _, label in table.labels):
        lines.append("Meta-step: mean wall time in training, smallest and largest over the columns of ours.")
    seeds = [
        len(cell.measured)
        for group in table.groups
        for row in group.rows
        for cell in row.cells.values()
        if row.method != FLOOR
    ]
    if seeds and min(seeds) < statistics.FEW_SEEDS:
        lines.append(
            f"Few seeds ({max(1, min(seeds))} in places): the interval over tasks says how well one trained model is "
            "measured, not how much another seed would change it."
        )
    return lines


def seeds_grid(table: Table) -> tuple[list[str], list[list[str]]] | None:
    """The intervals over seeds as a table of their own; None where no cell has more than one."""
    header = ["Method"]
    body = [[_name(table, label)] for _, label in table.labels]
    several = False
    for shots in table.shots:
        for group in table.groups:
            header.append(f"{shots}-shot ({group.protocol})")
            for line, (_, label) in zip(body, table.labels, strict=True):
                cell = table.cell(group, label, shots)
                several |= cell is not None and len(cell.measured) > 1
                line.append(over_seeds(cell) if cell else NONE)
    return (header, body) if several else None
