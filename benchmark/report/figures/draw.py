"""Fig. 1: how support loss and gradient norm fall along the inner loop, method by method, on the new tasks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.files import write_atomic
from benchmark.report.cell import Cell
from benchmark.report.figures.style import GUIDE, LineStyle, looks
from benchmark.report.group import TableGroup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
KINDS = ("fig1", "curves", "pareto", "tasks", "differences", "geometry")
"""How the file names of the report's figures begin."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what a page needs: its file `stem`, a `caption`, and an `alt` text that says what it shows."""

    stem: str
    caption: str
    alt: str
    figure: Figure


def slug(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def shown(label: str, longest: int = 30) -> str:
    """A label as a figure can hold it: cut where it is too long, its dollars no mathematics."""
    cut = label if len(label) <= longest else label[: longest - 1] + "…"
    return cut.replace("$", r"\$")


def place(group: TableGroup, shots: int) -> str:
    """``5-way 1-shot CIFAR-FS, controlled recipe``."""
    return f"{group.ways}-way {shots}-shot {group.title}, {group.protocol}"


def stem(kind: str, group: TableGroup, shots: int) -> str:
    return f"{kind}-{slug(group.title)}-{group.ways}way-{shots}shot-{slug(group.protocol.replace(' recipe', ''))}"


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write the figure in every format, without dates, so that the same results give the same files."""
    drawing.figure.draw_without_rendering()
    drawing.figure.set_layout_engine("none")  # laid out once, not once for each format
    written = []
    for extension in FORMATS:
        written.append(folder / f"{drawing.stem}.{extension}")
        write(drawing.figure, written[-1])
    return written


def write(figure: Figure, path: Path) -> None:
    """Write `figure` in the form that the name's ending says, without a date or a program's name."""
    kind = path.suffix[1:]
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, metadata=metadata[kind])
    write_atomic(path, drawn.getvalue())


def name_lines(axes: Sequence[Axes], labels: Sequence[str]) -> None:
    """Panels side by side that share horizontal lines 0, 1, … from the top, named on the left."""
    for axis in axes:
        axis.set_yticks(range(len(labels)), [shown(label) for label in labels])
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
        axis.tick_params(labelleft=axis is axes[0])


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, below them; a row that several panels show is named once."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(name), handle)
    if entries:
        names = [shown(name) for name in entries]
        figure.legend(list(entries.values()), names, loc="outside lower center", ncols=min(4, len(entries)))


def fig1(group: TableGroup, shots: int) -> Drawing | None:
    """Fig. 1 (a) support nll and (b) ‖∇L_S‖₂ against the inner step k; None where no run recorded a trace."""
    from matplotlib.figure import Figure

    cells = [cell for cell in group.cells(shots) if cell.band("support_nll") is not None]
    if not cells:
        return None
    styles = looks([(row.method, row.label) for row in group.rows])
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    axes = figure.subplots(1, 2)
    _curves(axes[0], cells, "support_nll", styles)
    _curves(axes[1], cells, "grad_norm", styles)
    unit = ", nats" if cells[0].metric == "accuracy" else ""  # a regression's loss is a mean square
    axes[0].set(title="(a) support loss", xlabel="inner step k", ylabel=rf"$L_S(\varphi^{{(k)}})${unit}")
    axes[1].set(title="(b) gradient norm", xlabel="inner step k", ylabel=r"$\|\nabla L_S(\varphi^{(k)})\|_2$")
    legend_below(figure, axes)
    tasks = max(found.count for cell in cells if (found := cell.band("support_nll")))
    return Drawing(
        stem("fig1", group, shots),
        f"Fig. 1, {place(group, shots)}: (a) support loss and (b) gradient norm at inner step k, mean over {tasks:,} "
        "new tasks with 95 % bands. The dashed line marks the number of steps used in training.",
        f"Two line charts for {place(group, shots)}. " + " ".join(_told(cell) for cell in cells),
        figure,
    )


def _told(cell: Cell) -> str:
    loss, norm = cell.band("support_nll"), cell.band("grad_norm")
    parts = [cell.label + ":"]
    for name, found in (("support loss", loss), ("gradient norm", norm)):
        if found is not None and found.count:
            parts.append(f"{name} from {found.mean[0]:.2f} to {found.mean[-1]:.2f} over {len(found.mean) - 1} steps;")
    return " ".join(parts).rstrip(";") + "."


def _curves(axis: Axes, cells: Iterable[Cell], column: str, styles: dict[str, LineStyle]) -> None:
    from matplotlib.ticker import MaxNLocator

    horizons = set()
    longest = 0
    for cell in cells:
        found = cell.band(column)
        if found is None or not found.count:
            continue
        look = styles[cell.label]
        k = np.arange(len(found.mean))
        longest = max(longest, len(k) - 1)
        note = f" ({found.excluded} tasks diverged)" if found.excluded else ""
        axis.plot(k, found.mean, color=look.color, linestyle=look.dashes, marker=look.marker, label=cell.label + note)
        axis.fill_between(
            k, found.mean - found.half, found.mean + found.half, color=look.color, alpha=0.18, linewidth=0
        )
        horizons |= {int(run.spec["steps"]) for run in cell.measured if "steps" in run.spec}
    for horizon in sorted(horizons):
        if horizon <= longest:
            axis.axvline(horizon, color=GUIDE, linestyle=(0, (4, 3)), linewidth=0.9, zorder=0)
            axis.annotate(
                "training horizon", (horizon, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                textcoords="offset points", va="top", fontsize=7, color="#444444",
            )  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
