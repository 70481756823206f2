"""Learning curves of meta-training: the query loss of the meta-steps, and the validation accuracy of all methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmark.recipes import BASELINE
from benchmark.report.cell import Cell
from benchmark.report.figures.draw import Drawing, drawing, name_ends, panels
from benchmark.report.figures.style import PAPER, LineStyle, looks, weight
from benchmark.report.figures.where import place, stem
from benchmark.report.group import TableGroup
from benchmark.report.scope import Scope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 60
"""Points of a training curve: each the mean over as many iterations as it takes."""
JOINED = 5
"""So many validations make a line; fewer are points, as nothing is known between them."""


def curves(group: TableGroup) -> Drawing | None:
    """Query loss of the meta-steps (binned) and meta-validation accuracy against iterations, mean over seeds."""
    kept = [shots for shots in group.shots if any(_tables(cell, "training") for cell in group.cells(shots))]
    if not kept:
        return None
    styles = looks([(row.method, row.label) for row in group.rows])

    def picture(narrow: bool) -> Figure:
        figure, axes = panels(2 * len(kept), narrow, height=2.3)
        for index, shots in enumerate(kept):
            cells = [cell for cell in group.cells(shots) if cell.method != BASELINE]
            left, right = axes[2 * index : 2 * index + 2]
            _losses(left, cells, styles)
            _accuracies(right, cells, styles)
            left.set(title=f"{shots}-shot: meta-training", xlabel="meta-step", ylabel="query loss, nats")
            right.set(title=f"{shots}-shot: meta-validation", xlabel="meta-step", ylabel="accuracy, %")
        return figure

    ends = [
        f"{cell.label} {shots}-shot: {100 * found.iloc[-1]:.1f} % at the end."
        for shots in kept
        for cell in group.cells(shots)
        if (found := _mean_curve(_tables(cell, "validation"), "accuracy")) is not None and np.isfinite(found.iloc[-1])
    ]
    return drawing(
        stem("curves", group),
        f"Learning curves, {place(group)}: query loss of the meta-steps and accuracy on meta-validation tasks, mean "
        "over seeds. A line that still rises at its end was not trained to the end of what it can learn; one that ends "
        f"early diverged or is not finished. Fewer than {JOINED} validations are not joined.",
        f"Line charts of training loss and validation accuracy for {place(group)}. " + " ".join(ends),
        picture,
        Scope.of(group),
    )


def _losses(axis: Axes, cells: Sequence[Cell], styles: dict[str, LineStyle]) -> None:
    for cell in cells:
        losses = _mean_curve(_tables(cell, "training"), "loss")
        if losses is None:
            continue
        edges = np.array_split(np.arange(len(losses)), min(BINS, len(losses)))
        x = [float(losses.index[part].to_numpy().mean()) for part in edges]
        look, line = styles[cell.label], weight(cell.method)
        axis.plot(
            x, [float(losses.iloc[part].mean()) for part in edges], color=look.color, linestyle=look.dashes,
            label=cell.label, **line,
        )  # fmt: skip
    axis.set_xlim(left=0)


def _accuracies(axis: Axes, cells: Sequence[Cell], styles: dict[str, LineStyle]) -> None:
    ends = []
    for cell in cells:
        accuracy = _mean_curve(_tables(cell, "validation"), "accuracy")
        if accuracy is None:
            continue
        look = styles[cell.label]
        line: dict[str, Any] = weight(cell.method) | {
            "linestyle": look.dashes if len(accuracy) >= JOINED else "none",
            "markersize": 3 if len(accuracy) >= JOINED else 5,
        }
        axis.plot(accuracy.index, 100 * accuracy, color=look.color, marker=look.marker, label=cell.label, **line)
        known = accuracy[np.isfinite(accuracy)]
        if len(known):
            ends.append((100 * float(known.iloc[-1]), cell.label, look.color, cell.method in PAPER))
    axis.set_xlim(left=0)
    name_ends(axis, ends)


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
