"""Runs become rows: which runs are comparable, which are seeds of one another, and what each row measured.

A *group* is what one column of Table 1 may hold: one data set, number of ways, recipe and norm. Runs on other images
under the same name (imported anew, or from another place) are of another group, named by the hash of its images. In it
a *row* is a method with one setting of its knobs, and a *cell* is the row at one number of shots: its runs differ by
seed alone. Where the same method appears with several settings, the knobs that differ become part of the row's label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.recipes import BASELINE
from benchmark.report.cell import PUBLISHED_NORM, Cell, inexact, is_plain, is_reconstructed, own_options
from benchmark.report.published import IMAGES, TITLES, dataset_title, method_order, method_title
from benchmark.runs.store import Run

NOT_KNOBS = {
    "name",
    "method",
    "options",
    "estimator",
    "first_order_for",
    "dataset",
    "ways",
    "shots",
    "seed",
    "recipe",
    "norm",
}
"""Fields of a spec that place a run or are always named; every other one is a knob."""


@dataclass(frozen=True, eq=False)
class Row:
    """A method with one setting of its knobs; `cells` by shots."""

    method: str
    label: str
    plain: bool = True
    """Not one of the choices that make another method of it (which parameters adapt, an estimator but exact)."""
    reconstructed: bool = False
    """No public text settles the method."""
    cells: dict[int, Cell] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TableGroup:
    """Rows that may stand in one column: one data set, ways, recipe and norm."""

    dataset: str
    """The data set's name; with the first digits of its hash where the results hold several under one name."""
    ways: int
    recipe: str
    norm: str
    rows: tuple[Row, ...]
    source: tuple[str, str] = ("", "")
    """What the tasks are drawn from: the data set's name and the hash of its images, empty where none was recorded."""

    @property
    def protocol(self) -> str:
        """``controlled recipe``; with the norm where it is not the one that the literature has."""
        return f"{self.recipe} recipe" + (f", {self.norm} norm" if self.norm != PUBLISHED_NORM else "")

    @property
    def title(self) -> str:
        """The data set as readers know it."""
        return dataset_title(self.dataset)

    @property
    def shots(self) -> list[int]:
        return sorted({shots for row in self.rows for shots in row.cells})

    def seeds(self, shots: int) -> int:
        """The number of measured seeds that most cells of a column have: what goes without saying, once said."""
        counts = [len(cell.measured) for cell in self.cells(shots) if cell.measured]
        return max(sorted(set(counts)), key=counts.count, default=0)

    def cells(self, shots: int) -> list[Cell]:
        """The cells at this number of shots, in the order of the table."""
        return [row.cells[shots] for row in self.rows if shots in row.cells]


def group_runs(runs: list[Run]) -> list[TableGroup]:
    """All groups, ordered by data set, ways, recipe and norm; rows in the order of the published table.

    A trial of a tuning has no test tasks and is in none. The baseline, which has no norm, is in that of every norm.
    """
    split: dict[tuple[tuple[str, str], int, str, str], list[Run]] = {}
    baselines: list[Run] = []
    for run in (each for each in runs if not each.is_trial):
        if run.spec["method"] == BASELINE:
            baselines.append(run)
        else:
            split.setdefault((*_place(run), str(run.spec["norm"])), []).append(run)
    for run in baselines:
        beside = [key for key in split if key[:3] == _place(run)] or [(*_place(run), PUBLISHED_NORM)]
        for key in beside:
            split.setdefault(key, []).append(run)
    names, several = _names(runs), Counter(dataset for dataset, _ in {key[0] for key in split})
    groups = []
    for (drawn, ways, recipe, norm), members in split.items():
        dataset, images = drawn
        title = dataset if several[dataset] == 1 else f"{dataset}{IMAGES}{images[:8] or 'not recorded'})"
        groups.append(TableGroup(title, ways, recipe, norm, _rows(members, names), drawn))
    return sorted(groups, key=lambda group: (group.dataset, group.ways, group.recipe, group.norm))


def source(run: Run) -> tuple[str, str]:
    """What the run's tasks were drawn from: the data set's name and the hash of its images."""
    return str(run.spec["dataset"]), str(run.environment.get("dataset_hash") or "")


def _place(run: Run) -> tuple[tuple[str, str], int, str]:
    return source(run), int(run.spec["ways"]), str(run.spec["recipe"])


def _names(runs: list[Run]) -> dict[str, str]:
    """Method → what readers call it: as published, else by its card's title, short, where no other has that name."""
    found: dict[str, str] = {}
    for run in runs:
        if run.card.get("title") and run.spec["method"] not in TITLES:
            found[str(run.spec["method"])] = run.card["title"].partition(" (")[0].strip()
    known = Counter([*TITLES.values(), *{str(run.spec["method"]) for run in runs}, *found.values()])
    return {method: name for method, name in found.items() if name and known[name] == 1 + (name == method)}


def _rows(runs: list[Run], names: Mapping[str, str]) -> tuple[Row, ...]:
    labels = _labels(runs, names)
    rows: dict[str, Row] = {}
    for run in sorted(runs, key=lambda each: (*method_order(str(each.spec["method"])), labels[each.name])):
        label, shots = labels[run.name], int(run.spec["shots"])
        row = rows.setdefault(label, Row(str(run.spec["method"]), label, is_plain(run), is_reconstructed(run)))
        before = row.cells[shots].runs if shots in row.cells else ()
        if any(each.spec["seed"] == run.spec["seed"] for each in before):
            continue  # the same run once more, with an option at its usual value
        members = tuple(sorted((*before, run), key=lambda each: (int(each.spec["seed"]), each.name)))
        row.cells[shots] = Cell(row.method, label, shots, members)
    return tuple(rows.values())


def _labels(runs: list[Run], names: Mapping[str, str]) -> dict[str, str]:
    """Run name → label: the method's title, its options, and the knobs in which it differs from its siblings."""
    titles = {}
    for run in runs:
        given = (f"{key}={_plain(value)}" for key, value in own_options(run).items())
        titles[run.name] = (str(run.spec["method"]), (*inexact(run), *given))
    siblings: dict[Any, list[Run]] = {}
    for run in runs:
        siblings.setdefault((titles[run.name], run.spec["shots"]), []).append(run)
    varied: dict[Any, set[str]] = {}
    for (title, _), members in siblings.items():
        knobs = {knob for run in members for knob in run.spec if knob not in NOT_KNOBS}
        differing = {knob for knob in knobs if len({repr(run.spec.get(knob)) for run in members}) > 1}
        varied.setdefault(title, set()).update(differing)
    labels = {}
    for run in runs:
        title = (method, options) = titles[run.name]
        suffix = ", ".join((*options, *(f"{knob}={_plain(run.spec.get(knob))}" for knob in sorted(varied[title]))))
        labels[run.name] = names.get(method, method_title(method)) + (f" ({suffix})" if suffix else "")
    return labels


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
