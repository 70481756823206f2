"""Accuracy against cost, accuracy over tasks, paired differences: one figure a group, one panel a number of shots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmark.recipes import BASELINE
from benchmark.report.cell import Cell
from benchmark.report.figures.curves import curves
from benchmark.report.figures.draw import Drawing, drawing, name_lines, name_points, panels, plain_log, shown
from benchmark.report.figures.style import GUIDE, PAPER, LineStyle, looks
from benchmark.report.figures.where import place, stem, unit
from benchmark.report.findings import Findings
from benchmark.report.group import TableGroup
from benchmark.report.pairs import outcome, select
from benchmark.report.published import method_title
from benchmark.report.scope import Scope
from benchmark.report.table import timed_ms
from benchmark.report.words import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


JUDGED_OVER = {"seeds and tasks": "seeds and the tasks within them", "tasks": "the tasks of one seed"}


def draw(group: TableGroup, pairs: pd.DataFrame, findings: Findings) -> Iterator[Drawing]:
    """Every figure of a group but Fig. 1."""
    styles = looks([(row.method, row.label) for row in group.rows])
    for found in (
        pareto(group, findings, styles),
        curves(group),
        differences(group, pairs, styles),
        distribution(group, styles),
    ):
        if found is not None:
            yield found


def pareto(group: TableGroup, findings: Findings, styles: dict[str, LineStyle]) -> Drawing | None:
    """Accuracy against the time of an inner step, timed at the size that was run; None where none was timed."""
    costs = {
        cell: ms
        for shots in group.shots
        for cell in group.cells(shots)
        if cell.score and (ms := timed_ms(findings, group.dataset, cell)) is not None
    }
    kept = [shots for shots in group.shots if any(cell in costs for cell in group.cells(shots))]
    if not kept:
        return None
    columns = {shots: [cell for cell in group.cells(shots) if cell in costs] for shots in kept}
    fronts = {shots: front(cells, costs) for shots, cells in columns.items()}

    def picture(narrow: bool) -> Figure:
        figure, axes = panels(len(kept), narrow, height=2.9)
        for axis, shots in zip(axes, kept, strict=True):
            _costs(axis, columns[shots], costs, styles)
            steps = [(costs[cell], cell.score.mean) for cell in fronts[shots] if cell.score]
            axis.step(*zip(*steps, strict=True), where="post", color=GUIDE, linewidth=0.8, zorder=0)
            axis.set(title=f"{shots}-shot", xlabel="inner step at 1 shot, ms", ylabel=unit(columns[shots]))
        return figure

    sentences = [
        f"{cell.label} {shots}-shot {cell.score.mean:.1f} at {costs[cell]:.3g} ms."
        for shots in kept
        for cell in fronts[shots]
        if cell.score
    ]
    return drawing(
        stem("pareto", group),
        f"Accuracy against cost, {place(group)}: higher and further left is better. Bars are 95 % intervals over "
        "tasks; the line joins the methods that none beats at their cost. Neither axis begins at zero.",
        f"Scatter chart of accuracy against cost for {place(group)}. On the front: " + " ".join(sentences),
        picture,
        Scope.of(group),
    )


def front(cells: Sequence[Cell], costs: dict[Cell, float]) -> list[Cell]:
    """Cells that no cheaper one equals, by rising cost."""
    found: list[Cell] = []
    for cell in sorted(cells, key=lambda cell: costs[cell]):
        assert cell.score is not None  # what a cost was looked up for
        sign = -1.0 if cell.metric == "nll" else 1.0
        if not found or sign * cell.score.mean > max(sign * each.score.mean for each in found if each.score):
            found.append(cell)
    return found


def _costs(axis: Axes, cells: Sequence[Cell], costs: dict[Cell, float], styles: dict[str, LineStyle]) -> None:
    points = []
    for cell in cells:
        score, look = cell.score, styles[cell.label]
        assert score is not None  # what a cost was looked up for
        axis.errorbar(
            costs[cell], score.mean, yerr=score.half, color=look.color, marker=look.marker, markersize=6,
            linestyle="none", capsize=1.5, elinewidth=0.9, label=cell.label,
        )  # fmt: skip
        points.append((costs[cell], score.mean, cell.label, look.color, cell.method in PAPER))
    low, high = min(costs[cell] for cell in cells), max(costs[cell] for cell in cells)
    if high > 3 * low:
        axis.set_xscale("log")
    axis.set_xlim(low / 1.12, high * 1.12)
    if high > 3 * low:
        plain_log(axis.xaxis)
    axis.margins(y=0.12)
    axis.autoscale_view(scalex=False)
    name_points(axis, points)


def distribution(group: TableGroup, styles: dict[str, LineStyle]) -> Drawing | None:
    """How accuracy spreads over tasks: median, quartiles, 5th and 95th percentile, and the mean; no baseline."""
    rows = [row for row in group.rows if row.method != BASELINE and any(cell.score for cell in row.cells.values())]
    kept = [shots for shots in group.shots if any(shots in row.cells and row.cells[shots].score for row in rows)]
    if not kept:
        return None
    sentences = []
    for shots in kept:
        for row in rows:
            if shots in row.cells and row.cells[shots].score:
                _, first, median, third, _ = _quantiles(row.cells[shots])
                sentences.append(
                    f"{row.label} {shots}-shot: median {median:.1f}, quartiles {first:.1f} to {third:.1f}."
                )

    def picture(narrow: bool) -> Figure:
        figure, axes = panels(len(kept), narrow, height=0.8 + 0.19 * len(rows))
        for axis, shots in zip(axes, kept, strict=True):
            for line, row in enumerate(rows):
                cell = row.cells.get(shots)
                if cell is None or not cell.score:
                    continue
                low, first, median, third, high = _quantiles(cell)
                color = styles[row.label].color
                axis.plot([low, high], [line, line], color=color, linewidth=1)
                axis.barh(line, third - first, left=first, height=0.55, color=color, alpha=0.35, linewidth=0)
                axis.plot([median, median], [line - 0.27, line + 0.27], color=color, linewidth=1.6)
                axis.plot(cell.score.mean, line, marker="o", color="white", markeredgecolor=color, markersize=3.8)
            axis.set(title=f"{shots}-shot", xlabel=f"{unit(group.cells(shots))} on one task")
        name_lines(axes, [row.label for row in rows], narrow)
        return figure

    return drawing(
        stem("tasks", group),
        f"Spread over tasks, {place(group)}: bar from the first to the third quartile with the median, line from the "
        "5th to the 95th percentile, circle at the mean. Tasks differ far more than methods do: only on common tasks "
        "can methods be told apart.",
        f"Box chart over test tasks for {place(group)}. " + " ".join(sentences),
        picture,
        Scope.of(group),
    )


def _quantiles(cell: Cell) -> list[float]:
    return [float(each) for each in np.percentile(cell.by_task.dropna().to_numpy(), [5, 25, 50, 75, 95])]


def differences(group: TableGroup, pairs: pd.DataFrame, styles: dict[str, LineStyle]) -> Drawing | None:
    """Paired difference of every row to one reference row (MAML where it is there) with its interval."""
    found: dict[int, list[tuple[str, float, float, float, bool]]] = {}
    judged = set()
    labels = [row.label for row in group.rows if row.method != BASELINE]
    if not labels:
        return None
    reference = method_title("maml") if method_title("maml") in labels else labels[0]
    for shots in group.shots:
        for _, row in select(pairs, group, shots).iterrows():
            if reference not in (row["a"], row["b"]) or not {row["a"], row["b"]} <= set(labels):
                continue
            sign = 1 if row["b"] == reference else -1
            low, high = sorted((sign * row["low"], sign * row["high"]))
            other = row["a"] if sign == 1 else row["b"]
            entry = (other, sign * row["difference"], low, high, bool(outcome(row)))
            found.setdefault(shots, []).append(entry)
            judged.add(row["judged_over"])
    if not found:
        return None
    names = [label for label in labels if any(entry[0] == label for entries in found.values() for entry in entries)]

    def picture(narrow: bool) -> Figure:
        figure, axes = panels(len(found), narrow, height=0.8 + 0.19 * len(names))
        for axis, (shots, entries) in zip(axes, found.items(), strict=True):
            axis.axvline(0, color=GUIDE, linewidth=0.8, zorder=0)
            for label, mean, low, high, significant in entries:
                look, line = styles[label], names.index(label)
                axis.plot([low, high], [line, line], color=look.color)
                axis.plot(
                    mean, line, marker=look.marker, markersize=5, color=look.color,
                    markerfacecolor=look.color if significant or look.marker == "x" else "white",
                )  # fmt: skip
            points = "loss" if unit(group.cells(shots)) == "loss" else "points"
            axis.set(title=f"{shots}-shot", xlabel=f"difference to {shown(reference)}, {points}")
        name_lines(axes, names, narrow)
        return figure

    sentences = [
        f"{label} {shots}-shot {signed(mean, '.2f')}, interval {signed(low, '.2f')} to {signed(high, '.2f')}."
        for shots, entries in found.items()
        for label, mean, low, high, _ in entries
    ]
    better = "Left" if all(unit(group.cells(shots)) == "loss" for shots in found) else "Right"
    over = " or ".join(words for key, words in JUDGED_OVER.items() if key in judged)
    return drawing(
        stem("differences", group),
        f"Paired differences to {reference}, {place(group)}: mean over common tasks with 95 % intervals over {over}. "
        f"{better} of zero is better. Filled: beyond chance after Holm's correction; open: not.",
        f"Interval chart of paired differences to {reference} for {place(group)}. " + " ".join(sentences),
        picture,
        Scope.of(group),
    )
