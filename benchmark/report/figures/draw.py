"""What every figure is made of: its two sizes, its files, panels, and names that stand at what they name."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.files import write_atomic
from benchmark.report.figures.style import COLUMN, WIDE
from benchmark.report.scope import EVERYTHING, Scope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
NARROW = "-column"
"""Ends the stem of the same figure at the width of one column, its panels stacked: an SVG, what a phone shows."""
KINDS = (
    "fig1", "curves", "pareto", "tasks", "differences", "geometry", "spectrum", "alpha", "trials", "cost",
)  # fmt: skip
"""How the file names of the report's figures begin."""

Picture = Callable[[bool], "Figure"]
"""Draws a figure: at the width of one column if asked, else of both."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what a page needs: its file `stem`, a `caption`, and an `alt` text that says what it shows."""

    stem: str
    caption: str
    alt: str
    figure: Figure
    narrow: Figure
    scope: Scope = EVERYTHING
    """What it is of."""


def drawing(stem: str, caption: str, alt: str, picture: Picture, scope: Scope = EVERYTHING) -> Drawing:
    """The figure in both widths."""
    return Drawing(stem, caption, alt, picture(False), picture(True), scope)


def slug(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def shown(label: str, longest: int = 30) -> str:
    """A label as a figure can hold it: cut where it is too long, its dollars no mathematics."""
    cut = label if len(label) <= longest else label[: longest - 1] + "…"
    return cut.replace("$", r"\$")


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write the figure in every format, without dates, so that the same results give the same files."""
    written = []
    for figure, stem, extensions in (
        (drawing.figure, drawing.stem, FORMATS),
        (drawing.narrow, drawing.stem + NARROW, ("svg",)),
    ):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not once for each format
        for extension in extensions:
            written.append(folder / f"{stem}.{extension}")
            write(figure, written[-1])
    return written


def write(figure: Figure, path: Path) -> None:
    """Write `figure` in the form that the name's ending says, without a date or a program's name."""
    kind = path.suffix[1:]
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, metadata=metadata[kind])
    write_atomic(path, drawn.getvalue())


def panels(count: int, narrow: bool, *, height: float, across: int = 2, sharey: bool = False) -> tuple[Figure, Any]:
    """A figure of `count` panels of this height in inches, `across` side by side or, if `narrow`, stacked; [count]."""
    from matplotlib.figure import Figure

    columns = 1 if narrow else min(across, count)
    rows = -(-count // columns)
    width = COLUMN if narrow else WIDE if count > 1 else WIDE * 0.7
    figure = Figure(figsize=(width, height * rows))
    figure.set_layout_engine("constrained", w_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers: 0.01, 0.1, 1; those at 2 and 5 too where there are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    few = high < 50 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def name_lines(axes: Sequence[Axes], labels: Sequence[str], narrow: bool = False) -> None:
    """Panels side by side that share horizontal lines 0, 1, … from the top, named on the left; each if `narrow`."""
    for axis in axes:
        axis.set_yticks(range(len(labels)), [shown(label) for label in labels])
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
        axis.tick_params(labelleft=narrow or axis is axes[0])


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, below them; a row that several panels show is named once."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(name), handle)
    if entries:
        names = [shown(name) for name in entries]
        columns = 2 if figure.get_figwidth() < WIDE / 2 else 5
        figure.legend(list(entries.values()), names, loc="outside lower center", ncols=min(columns, len(entries)))


def name_ends(axis: Axes, ends: Sequence[tuple[float, str, str, bool]], size: float = 6.5) -> None:
    """Write names to the right of a panel, at the height of the last value of each line, moved apart where they touch.

    `ends`: (value, name, colour, bold). Call it when the limits of the axis are set.
    """
    gap = 1.15 * size / _points(axis)[1]
    heights = np.clip([_fraction(axis, value) for value, *_ in ends], 0, 1)
    order = np.argsort(heights)
    places = _apart(heights[order], gap, beyond=0.12)
    for index, place in zip(order, places, strict=True):
        _, name, color, bold = ends[index]
        axis.annotate(
            shown(name, 18), (1.0, heights[index]), xycoords="axes fraction", xytext=(1.05, place),
            textcoords="axes fraction", va="center", fontsize=size, color=color,
            fontweight="bold" if bold else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def _points(axis: Axes) -> np.ndarray:
    """Width and height of a panel in points, about: three quarters of its share of a figure not yet laid out."""
    spec = axis.get_subplotspec()
    rows, columns = spec.get_geometry()[:2] if spec else (1, 1)
    return 72 * 0.75 * axis.get_figure(root=True).get_size_inches() / np.array([columns, rows])  # type: ignore[union-attr]


def _fraction(axis: Axes, value: float) -> float:
    """How high `value` lies in the panel, 0 … 1."""
    return float(axis.transLimits.transform(axis.transScale.transform((axis.get_xlim()[0] or 1, value)))[1])


def _apart(heights: np.ndarray, gap: float, beyond: float) -> np.ndarray:
    """Rising places at least `gap` from each other and as near to the rising `heights` as they can be.

    They reach as far as `beyond` outside 0 … 1, or as far on both sides where more than that is needed. The isotonic
    least-squares fit of heights minus their spacing, by pooling adjacent violators, within bounds.
    """
    if not len(heights):
        return heights
    spaced = heights - gap * np.arange(len(heights))
    blocks: list[list[float]] = []
    for value in spaced:
        blocks.append([float(value)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    fitted = np.concatenate([np.full(len(b), np.mean(b)) for b in blocks])
    beyond = max(beyond, (gap * (len(heights) - 1) - 1) / 2)
    return np.clip(fitted, -beyond, 1 + beyond - gap * (len(heights) - 1)) + gap * np.arange(len(heights))


def name_points(axis: Axes, points: Sequence[tuple[float, float, str, str, bool]], size: float = 6.5) -> None:
    """Write each point's name beside it, on the side where it covers least of what stands there already.

    `points`: (x, y, name, colour, bold). Call it when the limits of the axis are set.
    """
    from matplotlib.patheffects import withStroke

    scale = _points(axis)
    at = [
        axis.transLimits.transform(axis.transScale.transform((x, y))) * scale for x, y, *_ in points
    ]  # in points, from the lower left corner
    taken = [(place[0] - 4, place[1] - 4, place[0] + 4, place[1] + 4) for place in at]
    for (x, y, name, color, bold), place in zip(points, at, strict=True):
        width, tall = 0.62 * size * len(shown(name, 18)), 1.2 * size
        best: tuple[float, tuple[float, float], tuple[float, float, float, float]] | None = None
        for reach in (6.0, 14.0, 24.0):
            for dx, dy in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
                left = place[0] + dx * reach - (0 if dx > 0 else width if dx < 0 else width / 2)
                low = place[1] + dy * (reach if dx == 0 else reach * 0.8) - tall / 2
                box = (left, low, left + width, low + tall)
                outside = max(0, -left) + max(0, box[2] - scale[0] - 40) + max(0, -low) + max(0, box[3] - scale[1])
                cost = sum(_overlap(box, other) for other in taken) + 50 * outside + reach
                if best is None or cost < best[0]:
                    best = (cost, (left - place[0], low + tall / 2 - place[1]), box)
        assert best is not None  # eight sides were tried
        taken.append(best[2])
        axis.annotate(
            shown(name, 18), (x, y), xytext=best[1], textcoords="offset points", va="center", fontsize=size,
            color=color, fontweight="bold" if bold else "normal", annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The area that two boxes (left, low, right, high) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
