"""The other figures: learning curves, accuracy against cost, accuracy over tasks, paired differences, geometry.

One figure shows one group; its panels are the numbers of shots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmark.report.cell import FLOOR, Cell
from benchmark.report.figures.draw import Drawing, legend_below, name_lines, shown, slug
from benchmark.report.figures.style import GUIDE, LineStyle, looks
from benchmark.report.findings import Findings
from benchmark.report.group import TableGroup
from benchmark.report.pairs import outcome, select
from benchmark.report.published import method_title
from benchmark.report.table import step_ms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
"""Points of a training curve: each the mean over as many iterations as it takes."""


def draw(group: TableGroup, pairs: pd.DataFrame, findings: Findings) -> Iterator[Drawing]:
    """Every figure of this module that `group` gives."""
    styles = looks([(row.method, row.label) for row in group.rows])
    for drawing in (
        curves(group, styles),
        pareto(group, findings, styles),
        distribution(group, styles),
        differences(group, pairs, styles),
    ):
        if drawing is not None:
            yield drawing


def _name(kind: str, group: TableGroup) -> str:
    return f"{kind}-{slug(group.title)}-{group.ways}way-{slug(group.recipe)}"


def _where(group: TableGroup) -> str:
    return f"{group.ways}-way {group.title}, {group.recipe} recipe"


def _panels(count: int, *, height: float = 3.3, width: float = 3.6, rows: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.6, width * count), height * rows), layout="constrained")
    return figure, figure.subplots(rows, count, squeeze=False)


def _unit(cells: Sequence[Cell]) -> str:
    return "loss" if any(cell.metric == "nll" for cell in cells) else "accuracy, %"


def curves(group: TableGroup, styles: dict[str, LineStyle]) -> Drawing | None:
    """Query loss of the meta-steps (binned) and meta-validation accuracy against iterations, mean over seeds."""
    kept = [shots for shots in group.shots if any(_tables(cell, "training") for cell in group.cells(shots))]
    if not kept:
        return None
    figure, axes = _panels(2, rows=len(kept), height=2.7)
    for (left, right), shots in zip(axes, kept, strict=True):
        for cell in group.cells(shots):
            if cell.method == FLOOR:
                continue
            look = styles[cell.label]
            style: Any = {"color": look.color, "linestyle": look.dashes, "label": cell.label}
            losses = _mean_curve(_tables(cell, "training"), "loss")
            if losses is not None:
                edges = np.array_split(np.arange(len(losses)), min(BINS, len(losses)))
                x = [float(losses.index[part].to_numpy().mean()) for part in edges]
                left.plot(x, [float(losses.iloc[part].mean()) for part in edges], **style)
            accuracy = _mean_curve(_tables(cell, "validation"), "accuracy")
            if accuracy is not None:
                right.plot(accuracy.index, 100 * accuracy, marker=look.marker, **style)
        left.set(title=f"{shots}-shot: meta-training", xlabel="iteration", ylabel="query loss, nats")
        right.set(title=f"{shots}-shot: meta-validation", xlabel="iteration", ylabel="accuracy, %")
        left.set_xlim(left=0)
        right.set_xlim(left=0)
    legend_below(figure, axes.ravel())
    ends = [
        f"{cell.label} {shots}-shot: {100 * found.iloc[-1]:.1f} % at the end."
        for shots in kept
        for cell in group.cells(shots)
        if (found := _mean_curve(_tables(cell, "validation"), "accuracy")) is not None and np.isfinite(found.iloc[-1])
    ]
    return Drawing(
        _name("curves", group),
        f"Learning curves, {_where(group)}: query loss of the meta-steps and accuracy on meta-validation tasks, mean "
        "over seeds. A curve that ends early is that of a run that diverged or is not finished.",
        f"Line charts of training loss and validation accuracy for {_where(group)}. " + " ".join(ends),
        figure,
    )


def _tables(cell: Cell, name: str) -> list[pd.DataFrame]:
    """The curves of the measured runs; of a cell without any, those of the runs that diverged or are unfinished."""
    found = [getattr(run, name) for run in cell.measured or cell.runs]
    return [table for table in found if table is not None and len(table)]


def _mean_curve(tables: Sequence[pd.DataFrame], column: str) -> pd.Series | None:
    """Mean over runs at the iterations that all of them reached; non-finite values leave a gap."""
    found = [table.set_index("iteration")[column] for table in tables if column in table]
    if not found:
        return None
    joined = pd.concat(found, axis=1, join="inner")
    return joined.mean(axis=1, skipna=False).replace([np.inf, -np.inf], np.nan) if len(joined) else None


def pareto(group: TableGroup, findings: Findings, styles: dict[str, LineStyle]) -> Drawing | None:
    """Accuracy against the time of an inner step, timed at the size that was run; None where none was timed."""
    costs = {
        cell: ms
        for shots in group.shots
        for cell in group.cells(shots)
        if cell.score and (ms := step_ms(findings, group.dataset, cell)) is not None
    }
    kept = [shots for shots in group.shots if any(cell in costs for cell in group.cells(shots))]
    if not kept:
        return None
    figure, axes = _panels(len(kept))
    unit = "inner step, ms"
    sentences = []
    for axis, shots in zip(axes[0], kept, strict=True):
        cells = [cell for cell in group.cells(shots) if cell in costs]
        front: list[tuple[float, float]] = []
        sign = -1.0 if _unit(cells) == "loss" else 1.0
        for cell in sorted(cells, key=lambda cell: costs[cell]):
            score, look = cell.score, styles[cell.label]
            assert score is not None  # what `costs` holds
            axis.errorbar(
                costs[cell], score.mean, yerr=score.half, color=look.color, marker=look.marker, markersize=7,
                linestyle="none", capsize=2, label=cell.label,
            )  # fmt: skip
            if not front or sign * score.mean > sign * front[-1][1]:
                front.append((costs[cell], score.mean))
                sentences.append(f"{cell.label} {shots}-shot {score.mean:.1f} at {costs[cell]:.3g} ms.")
        axis.step(*zip(*front, strict=True), where="post", color=GUIDE, linewidth=0.9, zorder=0)
        axis.set(title=f"{shots}-shot", xlabel=unit, ylabel=_unit(cells))
        spent = [costs[cell] for cell in cells]
        if max(spent) > 8 * min(spent):
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        else:
            axis.set_xlim(left=0, right=1.1 * max(spent))
    legend_below(figure, axes.ravel())
    return Drawing(
        _name("pareto", group),
        f"Accuracy against cost, {_where(group)}: 95 % intervals over tasks; the line joins the methods that none "
        "beats at their cost.",
        f"Scatter chart of accuracy against cost for {_where(group)}. On the front: " + " ".join(sentences),
        figure,
    )


def distribution(group: TableGroup, styles: dict[str, LineStyle]) -> Drawing | None:
    """How accuracy spreads over tasks: median, quartiles, 5th and 95th percentile, and the mean."""
    kept = [shots for shots in group.shots if any(cell.score for cell in group.cells(shots))]
    if not kept:
        return None
    rows = [row for row in group.rows if any(cell.score for cell in row.cells.values())]
    figure, axes = _panels(len(kept), height=1.2 + 0.28 * len(rows))
    sentences = []
    for axis, shots in zip(axes[0], kept, strict=True):
        for place, row in enumerate(rows):
            cell = row.cells.get(shots)
            if cell is None or not cell.score:
                continue
            values = cell.by_task.dropna().to_numpy()
            low, first, median, third, high = np.percentile(values, [5, 25, 50, 75, 95])
            look = styles[row.label]
            axis.plot([low, high], [place, place], color=look.color, linewidth=1.2)
            axis.barh(place, third - first, left=first, height=0.55, color=look.color, alpha=0.35, linewidth=0)
            axis.plot([median, median], [place - 0.27, place + 0.27], color=look.color, linewidth=1.8)
            axis.plot(cell.score.mean, place, marker="o", color="white", markeredgecolor=look.color, markersize=4.5)
            sentences.append(f"{row.label} {shots}-shot: median {median:.1f}, quartiles {first:.1f} to {third:.1f}.")
        axis.set(title=f"{shots}-shot", xlabel=f"{_unit(group.cells(shots))} on one task")
    name_lines(axes[0], [row.label for row in rows])
    return Drawing(
        _name("tasks", group),
        f"Spread over tasks, {_where(group)}: bar from the first to the third quartile with the median, line from the "
        "5th to the 95th percentile, circle at the mean.",
        f"Box chart over test tasks for {_where(group)}. " + " ".join(sentences),
        figure,
    )


def differences(group: TableGroup, pairs: pd.DataFrame, styles: dict[str, LineStyle]) -> Drawing | None:
    """Paired difference of every row to one reference row (MAML where it is there) with its bootstrap interval."""
    found: dict[int, list[tuple[str, float, float, float, bool]]] = {}
    labels = [row.label for row in group.rows if row.method != FLOOR]
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
            place = (other, sign * row["difference"], low, high, bool(outcome(row)))
            found.setdefault(shots, []).append(place)
    if not found:
        return None
    names = [label for label in labels if any(entry[0] == label for entries in found.values() for entry in entries)]
    figure, axes = _panels(len(found), height=1.2 + 0.28 * len(names))
    sentences = []
    for axis, (shots, entries) in zip(axes[0], found.items(), strict=True):
        axis.axvline(0, color=GUIDE, linewidth=0.9, zorder=0)
        for label, mean, low, high, significant in entries:
            look, line = styles[label], names.index(label)
            axis.plot([low, high], [line, line], color=look.color)
            axis.plot(
                mean, line, marker=look.marker, markersize=6, color=look.color,
                markerfacecolor=look.color if significant or look.marker == "x" else "white",
            )  # fmt: skip
            sentences.append(f"{label} {shots}-shot {mean:+.2f}, interval {low:+.2f} to {high:+.2f}.")
        unit = "points" if _unit(group.cells(shots)) != "loss" else "loss"
        axis.set(title=f"{shots}-shot", xlabel=f"difference to {shown(reference)}, {unit}")
    name_lines(axes[0], names)
    return Drawing(
        _name("differences", group),
        f"Paired differences to {reference}, {_where(group)}: mean over common tasks with 95 % bootstrap intervals. "
        "Filled: beyond chance after Holm's correction; open: not.",
        f"Interval chart of paired differences to {reference} for {_where(group)}. " + " ".join(sentences),
        figure,
    )
