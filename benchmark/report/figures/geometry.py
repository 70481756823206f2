"""The figures of what ``verify`` found out about the learned maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from benchmark.report.figures.draw import Drawing, drawing, name_ends, name_lines, panels, plain_log
from benchmark.report.figures.style import GUIDE, PAPER, looks
from benchmark.report.findings import Findings
from benchmark.report.published import method_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = (
    ("least", "smallest eigenvalue of\n(J + Jᵀ)/2", "symlog"),
    ("asymmetry", "asymmetry\n‖J − Jᵀ‖/(2‖J‖)", "linear"),
    ("condition", "condition number\nof J", "log"),
    ("cosine", "cosine of update\nand −∇L", "linear"),
)


def draw(findings: Findings) -> Iterator[Drawing]:
    """Both figures, where there are rows for them."""
    for found in (geometry(findings), spectrum(findings)):
        if found is not None:
            yield found


def geometry(findings: Findings) -> Drawing | None:
    """One panel for each measure, one line for each method with a trained checkpoint, one dot for each of them.

    The start, where most maps are the identity, is left out.
    """
    table = findings.geometry[findings.geometry["stage"] == "trained"]
    taken = [measure for measure in MEASURES if np.isfinite(table[measure[0]]).any()]
    if not taken:
        return None
    methods = list(dict.fromkeys(table["method"]))
    styles = looks([(method, method_title(method)) for method in methods])
    sentences = [
        f"{method_title(row['method'])}: {column} {row[column]:.3g}."
        for column, *_ in taken
        for row in table.to_dict("records")
        if np.isfinite(row[column])
    ]

    def picture(narrow: bool) -> Figure:
        from matplotlib.ticker import MaxNLocator

        figure, axes = panels(len(taken), narrow, height=0.8 + 0.2 * len(methods), across=len(taken))
        for axis, (column, title, scale) in zip(axes, taken, strict=True):
            for line, method in enumerate(methods):
                look = styles[method_title(method)]
                values = table[table["method"] == method][column].dropna()
                axis.plot(values, [line] * len(values), marker=look.marker, color=look.color, linestyle="none")
            if column in ("least", "asymmetry"):
                axis.axvline(0, color=GUIDE, linewidth=0.8, zorder=0)
            if scale == "log" or (scale == "symlog" and table[column].abs().max() > 100):
                axis.set_xscale(scale)
            if scale == "log":
                plain_log(axis.xaxis)
            elif axis.get_xscale() == "linear":
                axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.set_title(title, fontsize=7.5)
        name_lines(axes, [method_title(method) for method in methods], narrow)
        return figure

    return drawing(
        "geometry",
        "Geometry of the learned update, a mark for each trained checkpoint. Left of zero in the first panel the map "
        "turns back; right of zero in the second it is the gradient of no function; a cosine of 1 is gradient descent.",
        "Dot chart of the geometry of each method's update. " + " ".join(sentences),
        picture,
    )


def spectrum(findings: Findings) -> Drawing | None:
    """The eigenvalues of each learned update's symmetric part, from the smallest to the largest."""
    table = findings.spectrum.dropna(subset=["share", "eigenvalue"])
    if table.empty:
        return None
    methods = list(dict.fromkeys(table["method"]))
    styles = looks([(method, method_title(method)) for method in methods])
    large = table["eigenvalue"].abs().max() > 20

    def picture(narrow: bool) -> Figure:
        figure, (axis,) = panels(1, narrow, height=3.0)
        ends = []
        axis.axhline(1, color=GUIDE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        if (table["eigenvalue"] > 0).all():
            axis.set_yscale("log")  # a tenth of α is as far from it as ten times α
        elif large:
            axis.set_yscale("symlog", linthresh=1)
        for method in methods:
            look = styles[method_title(method)]
            for _, rows in table[table["method"] == method].groupby("run"):
                rows = rows.sort_values("share")
                axis.plot(
                    100 * rows["share"], rows["eigenvalue"], color=look.color, linestyle=look.dashes,
                    linewidth=1.2, marker=".", markersize=4,
                )  # fmt: skip
                last = float(rows["eigenvalue"].iloc[-1])
            ends.append((last, method_title(method), look.color, method in PAPER))
        axis.set(xlabel="share of the eigenvalues, %", ylabel="eigenvalue of (M + Mᵀ)/2", xlim=(0, 100))
        name_ends(axis, ends)
        return figure

    told = [
        f"{method_title(method)}: from {rows['eigenvalue'].min():.3g} to {rows['eigenvalue'].max():.3g}."
        for method, rows in table.groupby("method", sort=False)
    ]
    return drawing(
        "spectrum",
        "Spectrum of each learned geometry: the eigenvalues of the update's symmetric part, as factors on α, in rising "
        "order, a line for each trained checkpoint. Gradient descent is the dashed line at 1; a curve below zero "
        "climbs, a steep one steps far in a few directions.",
        "Line chart of the eigenvalues of each method's learned update. " + " ".join(told),
        picture,
    )
