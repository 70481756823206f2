"""Table 1: method × shots, published numbers beside ours.

One table holds one data set and number of ways. For each number of shots it shows what the papers print, then one
column for each recipe and norm that was run. The *long form* has one line for each method, shots, recipe and norm at
full precision: the CSV. The *wide form* prints the same numbers rounded: Markdown and LaTeX
(:mod:`benchmark.report.formats`) and page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from benchmark.report import pairs
from benchmark.report.cell import Cell
from benchmark.report.findings import Findings
from benchmark.report.group import TableGroup
from benchmark.report.published import (
    RECONSTRUCTED,
    REPAIR,
    REPAIRED,
    Published,
    Reference,
    dataset_title,
    image_size,
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
    compared: pd.DataFrame
    """All pairs, see :func:`benchmark.report.pairs.frame`."""
    findings: Findings | None = None

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
    def sources(self) -> list[str]:
        """Where the numbers that stand here are printed, each place once."""
        found = [
            self.reference.printed(method, shots)
            for shots in self.shots
            for method, label in self.labels
            if self.plain(label)
        ]
        return list(dict.fromkeys(number.source for number in found if number))

    def mark(self, number: Published) -> str:
        """What stands behind a printed number to say where it is printed; nothing where all are from one place."""
        return f" [{self.sources.index(number.source) + 1}]" if len(self.sources) > 1 else ""

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

    @property
    def repaired(self) -> list[str]:
        """Rows of the suite's repair of the published map, where a printed number stands beside them."""
        if not self.reference.numbers.keys() & {(REPAIRED, shots) for shots in self.shots}:
            return []
        return [label for method, label in self.labels if method == REPAIRED and self.plain(label)]

    def meta_parameters(self, label: str) -> list[int]:
        """The numbers of meta-parameters that the runs of this row recorded."""
        rows = [row for group in self.groups for row in group.rows if row.label == label]
        cells = [cell for row in rows for cell in row.cells.values()]
        counts = {run.status.get("meta_parameters") for cell in cells for run in cell.runs}
        return sorted(count for count in counts if isinstance(count, int))

    def step_ms(self, label: str) -> list[float]:
        """Milliseconds of an inner step at the image size and width of this row's runs; empty where not timed there."""
        found = [self.cell(group, label, shots) for shots in self.shots for group in self.groups]
        times = {timed_ms(self.findings, self.dataset, cell) for cell in found if cell}
        return sorted(ms for ms in times if ms is not None)

    def best(self, group: TableGroup, shots: int) -> set[str]:
        """Labels of the best row and its ties, see :func:`benchmark.report.pairs.best`."""
        return pairs.best(self.compared, group, shots)

    def cell(self, group: TableGroup, label: str, shots: int) -> Cell | None:
        """The cell of that row, or None where it was not run."""
        return next((row.cells.get(shots) for row in group.rows if row.label == label), None)


def timed_ms(findings: Findings | None, dataset: str, cell: Cell, quantity: str = "adapt_step") -> float | None:
    """Milliseconds of an inner step (or `quantity`) as timed at the size that `cell` was run at; None where it was not.

    Times are of one 1-shot task on the network cnn4, and of each method as it is without options.
    """
    size = image_size(dataset)
    if findings is None or size is None or cell.options or not cell.plain:
        return None
    if any(run.spec["network"] != "cnn4" for run in cell.runs):
        return None
    widths = {float(run.spec["channels"]) for run in cell.runs}
    return findings.milliseconds(size, widths.pop(), quantity).get(cell.method) if len(widths) == 1 else None


def tables(
    groups: Sequence[TableGroup], findings: Findings | None = None, compared: pd.DataFrame | None = None
) -> list[Table]:
    """One table for each data set and number of ways."""
    compared = pairs.frame(groups) if compared is None else compared
    split: dict[tuple[str, int], list[TableGroup]] = {}
    for group in groups:
        split.setdefault((group.dataset, group.ways), []).append(group)
    return [Table(*key, tuple(members), compared, findings) for key, members in split.items()]


def frame(tables: Sequence[Table]) -> pd.DataFrame:
    """The long form: one row for each data set, ways, recipe, norm, method and shots, at full precision.

    Accuracies are percent. ``half_tasks`` is the half-width over the tasks of one seed, ``sd_seeds`` the standard
    deviation over seeds, ``half_seeds`` Student's half-width over them; ``inner_step_ms`` is of one 1-shot inner step.
    """
    records = []
    for table in tables:
        printed = table.reference
        for group in table.groups:
            best = {shots: table.best(group, shots) for shots in group.shots}
            for row in group.rows:
                for shots, cell in sorted(row.cells.items()):
                    number = printed.printed(row.method, shots) if row.plain else None
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
                        "published_in": number.source if number else None,
                        "published": number.mean if number else None,
                        "published_half": number.half if number else None,
                        "mean": score.mean if score else None,
                        "half_tasks": score.half if score else None,
                        "sd_seeds": cell.spread if score else None,
                        "half_seeds": seeds.half if seeds else None,
                        "best_or_tied": row.label in best[shots],
                        "tasks": score.count if score else 0,
                        "tasks_diverged": score.excluded if score else 0,
                        "seeds": len({int(run.spec["seed"]) for run in cell.measured}),
                        "runs": len(cell.runs),
                        "runs_diverged": cell.diverged,
                        "runs_unfinished": cell.unfinished,
                        "meta_parameters": cell.meta_parameters,
                        "inner_step_ms": timed_ms(table.findings, group.dataset, cell),
                        "remark": RECONSTRUCTED if row.reconstructed else REPAIR if row.method == REPAIRED else None,
                    })  # fmt: skip
    return pd.DataFrame.from_records(records)


@dataclass(frozen=True)
class Place:
    """One place of the wide form: what is printed, the number behind it at full precision, and whether it is best."""

    text: str
    value: float | None = None
    best: bool = False
    cell: Cell | None = field(default=None, compare=False)
    """The runs that the number is made of."""


@dataclass(frozen=True)
class Column:
    """A column of the wide form: its heading, one place for each row, and what it is of (None: of all)."""

    title: str
    places: list[Place]
    shots: int | None = None
    protocol: str = ""


def columns(table: Table) -> list[Column]:
    """The wide form; best rows and their ties are marked in each column of ours."""
    found = [Column("Method", [Place(_name(table, label)) for _, label in table.labels])]
    printed = table.reference
    for shots in table.shots:
        if printed.numbers:
            places = []
            for method, label in table.labels:
                number = printed.printed(method, shots) if table.plain(label) else None
                shown = plus_minus(number.mean, number.half) + table.mark(number) if number else NONE
                places.append(Place(shown, number.mean if number else None))
            found.append(Column(f"{shots}-shot, paper ({printed.title})", places, shots))
        for group in table.groups:
            best, places = table.best(group, shots), []
            for _, label in table.labels:
                cell = table.cell(group, label, shots)
                value = cell.score.mean if cell and cell.score else None
                places.append(Place(text(cell, group.seeds(shots)), value, label in best, cell))
            found.append(Column(column_title(group, shots), places, shots, group.protocol))
    counts = [table.meta_parameters(label) for _, label in table.labels]
    found.append(Column("Meta-parameters", [Place(counted(each), each[0] if each else None) for each in counts]))
    steps = [table.step_ms(label) for _, label in table.labels]
    if any(steps):
        found.append(Column("Inner step, ms", [Place(spread(each), each[0] if each else None) for each in steps]))
    return found


def grid(table: Table) -> tuple[list[str], list[list[Place]]]:
    """Header and body of the wide form."""
    found = columns(table)
    return [each.title for each in found], [list(line) for line in zip(*(each.places for each in found), strict=True)]


def column_title(group: TableGroup, shots: int) -> str:
    """``5-shot, ours (controlled recipe, 3 seeds)``."""
    count = group.seeds(shots)
    told = any(group.seeds(each) > 1 for each in group.shots)
    seeds = f", {'one seed' if count == 1 else f'{count} seeds'}" if told else ""
    return f"{shots}-shot, ours ({group.protocol}{seeds})"


def _name(table: Table, label: str) -> str:
    marks = " *" * table.reconstructed(label) + " †" * (label in table.repaired)
    return label + marks


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
