"""Learning curves of meta-training: the outer loss of the meta-steps, and the validation score of all methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmark.recipes import BASELINE
from benchmark.report.cell import Cell
from benchmark.report.figures.draw import Drawing, drawing, name_ends, panels
from benchmark.report.figures.style import PAPER, LineStyle, looks, weight
from benchmark.report.figures.where import place, stem, unit
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
    """Outer loss of the meta-steps (binned) and meta-validation score against iterations, mean over seeds."""
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
            _scores(right, cells, styles)
            score = unit(cells)
            loss = "outer loss" if score == "loss" else "outer loss, nats"  # a regression's is a mean square
            left.set(title=f"{shots}-shot: meta-training", xlabel="meta-step", ylabel=loss)
            right.set(title=f"{shots}-shot: meta-validation", xlabel="meta-step", ylabel=score)
        return figure

    ends = [
        f"{cell.label} {shots}-shot: {_told(cell, found.iloc[-1])} at the end."
        for shots in kept
        for cell in group.cells(shots)
        if (found := _validated(cell)) is not None and np.isfinite(found.iloc[-1])
    ]
    return drawing(
        stem("curves", group),
        f"Learning curves, {place(group)}: outer loss of the meta-steps and score on meta-validation tasks, mean "
        "over seeds. The outer loss is what a method is trained by: the query loss, but for methods with an objective "
        "of their own, as WarpGrad's, whose height says nothing beside the others. A line that still rises at its end "
        "was not trained to the end of what it can learn; one that ends early diverged or is not finished. Fewer than "
        f"{JOINED} validations are not joined.",
        f"Line charts of training loss and validation score for {place(group)}. " + " ".join(ends),
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


def _scores(axis: Axes, cells: Sequence[Cell], styles: dict[str, LineStyle]) -> None:
    ends = []
    for cell in cells:
        score = _validated(cell)
        if score is None:
            continue
        look = styles[cell.label]
        line: dict[str, Any] = weight(cell.method) | {
            "linestyle": look.dashes if len(score) >= JOINED else "none",
            "markersize": 3 if len(score) >= JOINED else 5,
        }
        axis.plot(score.index, score, color=look.color, marker=look.marker, label=cell.label, **line)
        known = score[np.isfinite(score)]
        if len(known):
            ends.append((float(known.iloc[-1]), cell.label, look.color, cell.method in PAPER))
    axis.set_xlim(left=0)
    name_ends(axis, ends)


def _validated(cell: Cell) -> pd.Series | None:
    """The scores on meta-validation tasks in the units of the table: percent, or a regression's loss."""
    curve = _mean_curve(_tables(cell, "validation"), cell.metric)
    return curve if curve is None or cell.metric == "nll" else 100 * curve


def _told(cell: Cell, score: float) -> str:
    return f"{score:.2f}" if cell.metric == "nll" else f"{score:.1f} %"


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
