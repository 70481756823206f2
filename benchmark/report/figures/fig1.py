"""Fig. 1: how support loss and gradient norm fall along the inner loop, method by method, on the new tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmark.report.cell import Cell
from benchmark.report.figures.draw import Drawing, drawing, name_ends, panels, plain_log
from benchmark.report.figures.style import GUIDE, PAPER, LineStyle, looks, weight
from benchmark.report.figures.where import place, stem
from benchmark.report.group import TableGroup
from benchmark.report.scope import Scope
from benchmark.report.words import between, listed
from benchmark.statistics import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def fig1(group: TableGroup, shots: int) -> Drawing | None:
    """Support nll and ‖∇L_S‖₂ against the inner step k, linear and logarithmic; None where no run recorded a trace."""
    cells = [cell for cell in group.cells(shots) if cell.band("support_nll") is not None]
    if not cells:
        return None
    styles = looks([(row.method, row.label) for row in group.rows])
    unit = ", nats" if cells[0].metric == "accuracy" else ""  # a regression's loss is a mean square
    names = {"support_nll": rf"$L_S(\varphi^{{(k)}})${unit}", "grad_norm": r"$\|\nabla L_S(\varphi^{(k)})\|_2$"}
    titles = {"support_nll": "support loss", "grad_norm": "gradient norm"}

    def picture(narrow: bool) -> Figure:
        figure, axes = panels(4, narrow, height=2.35)
        for index, axis in enumerate(axes):
            column, scale = ("support_nll", "grad_norm")[index // 2], ("linear", "log")[index % 2]
            _curves(axis, cells, column, scale, styles)
            axis.set(title=f"({'abcd'[index]}) {titles[column]}{', log axis' * (scale == 'log')}", ylabel=names[column])
            axis.set_xlabel("inner step k")
        return figure

    tasks = between([found.count for cell in cells if (found := cell.band("support_nll"))])
    several = any(len(cell.measured) > 1 for cell in cells)
    leaving = [
        cell.label for cell in cells
        if any(found.mean.max() > _top(cells, column) for column in names if (found := cell.band(column)))
    ]  # fmt: skip
    left = f" Past them {listed(leaving)} leave{'s' * (len(leaving) == 1)} the linear axes." if leaving else ""
    band = "bands from the smallest to the largest seed" if several else "95 % bands over tasks, of one seed"
    return drawing(
        stem("fig1", group, shots),
        f"Fig. 1, {place(group, shots)}: support loss (a, b) and gradient norm (c, d) at inner step k, mean over "
        f"{tasks} new tasks, {band}. Left: who starts lower and drops faster; right, on a logarithmic axis: who ends "
        f"lower, and whose line is flat there. The paper's methods are bold; dashed: the steps in training.{left}",
        f"Four line charts for {place(group, shots)}. " + " ".join(_told(cell) for cell in cells),
        picture,
        Scope.of(group, shots),
    )


def _told(cell: Cell) -> str:
    loss, norm = cell.band("support_nll"), cell.band("grad_norm")
    parts = [cell.label + ":"]
    for name, found in (("support loss", loss), ("gradient norm", norm)):
        if found is not None and found.count:
            parts.append(f"{name} from {found.mean[0]:.2f} to {found.mean[-1]:.2g} over {len(found.mean) - 1} steps;")
    return " ".join(parts).rstrip(";") + "."


def edges(cell: Cell, column: str, found: Band) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of a line's band: over seeds where there are several, else over the tasks of the one."""
    traces = cell.traces(column)
    assert traces is not None  # what a band was made of
    by_seed = traces[np.isfinite(traces).all(axis=1)].groupby(level="seed").mean()
    if len(by_seed) > 1:
        return by_seed.min().to_numpy(), by_seed.max().to_numpy()
    return found.mean - found.half, found.mean + found.half


def _top(cells: Sequence[Cell], column: str) -> float:
    """Where a linear axis ends: a tenth above all lines up to their steps in training; infinite where there is none.

    A method that diverges when it goes on beyond its training would press all others flat.
    """
    heights = []
    for cell in cells:
        found = cell.band(column)
        if found is not None and found.count:
            trained = max(int(run.spec["steps"]) for run in cell.measured)
            heights.append(float(found.mean[: trained + 1].max()))
    return 1.1 * max(heights) if heights and max(heights) > 0 else math.inf


def _curves(axis: Axes, cells: Sequence[Cell], column: str, scale: str, styles: dict[str, LineStyle]) -> None:
    from matplotlib.ticker import MaxNLocator

    horizons, longest, ends = set(), 0, []
    axis.set_yscale(scale)
    for cell in cells:
        found = cell.band(column)
        if found is None or not found.count:
            continue
        look = styles[cell.label]
        k = np.arange(len(found.mean))
        longest = max(longest, len(k) - 1)
        note = f" ({found.excluded} tasks diverged)" if found.excluded else ""
        line = weight(cell.method)
        axis.plot(
            k, found.mean, color=look.color, linestyle=look.dashes, marker=look.marker, label=cell.label + note, **line
        )
        low, high = edges(cell, column, found)
        if scale == "log":
            low = np.maximum(low, found.mean / 100)  # what lies below zero has no place on it
        axis.fill_between(k, low, high, color=look.color, alpha=0.15, linewidth=0)
        horizons |= {int(run.spec["steps"]) for run in cell.measured if "steps" in run.spec}
        ends.append((float(found.mean[-1]), cell.label + note, look.color, cell.method in PAPER))
    for horizon in sorted(horizons):
        if horizon <= longest:
            axis.axvline(horizon, color=GUIDE, linestyle=(0, (4, 3)), linewidth=0.8, zorder=0)
            axis.annotate(
                "training horizon", (horizon, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                textcoords="offset points", va="top", fontsize=6.5, color="#444444",
            )  # fmt: skip
    axis.set_xlim(0, longest * 1.01)
    if scale == "linear":
        top = _top(cells, column)
        axis.set_ylim(0, top if math.isfinite(top) else None)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if scale == "log":
        plain_log(axis.yaxis)
        name_ends(axis, ends)
