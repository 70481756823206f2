"""The figure of what ``verify`` found out about the learned maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.report.figures.draw import Drawing, name_lines
from benchmark.report.figures.style import GUIDE, looks
from benchmark.report.findings import Findings
from benchmark.report.published import method_title

MEASURES = (
    ("least", "smallest eigenvalue of\n(J + Jᵀ)/2", "symlog"),
    ("asymmetry", "asymmetry ‖J − Jᵀ‖/2‖J‖", "linear"),
    ("condition", "condition number", "log"),
    ("cosine", "cosine of update and −∇L", "linear"),
)


def geometry(findings: Findings) -> Drawing | None:
    """One panel for each measure that was taken, one line for each method: open at the start, filled when trained."""
    from matplotlib.figure import Figure

    table = findings.geometry
    taken = [measure for measure in MEASURES if np.isfinite(table[measure[0]]).any()]
    if not taken:
        return None
    methods = list(dict.fromkeys(table["method"]))
    styles = looks([(method, method_title(method)) for method in methods])
    figure = Figure(figsize=(1.6 + 2.1 * len(taken), 1.3 + 0.3 * len(methods)), layout="constrained")
    axes: Any = figure.subplots(1, len(taken), squeeze=False)[0]
    sentences = []
    for axis, (column, title, scale) in zip(axes, taken, strict=True):
        for place, method in enumerate(methods):
            look = styles[method_title(method)]
            for row in table[table["method"] == method].to_dict("records"):
                value = row[column]
                if not np.isfinite(value):
                    continue
                trained = row["stage"] == "trained"
                axis.plot(
                    value, place, marker="o", markersize=6, color=look.color, linestyle="none",
                    markerfacecolor=look.color if trained else "white",
                )  # fmt: skip
                sentences.append(f"{method_title(method)}, {row['stage'] or 'unknown stage'}: {column} {value:.3g}.")
        if column in ("least", "asymmetry", "cosine"):
            axis.axvline(0, color=GUIDE, linewidth=0.9, zorder=0)
        if scale == "log" or (scale == "symlog" and table[column].abs().max() > 100):
            axis.set_xscale(scale)
        axis.set_title(title, fontsize=8.5)
    name_lines(axes, [method_title(method) for method in methods])
    return Drawing(
        "geometry",
        "Geometry of the update as verify measured it: open at the start, filled for trained checkpoints. Left of zero "
        "in the first panel a map is not monotone; right of zero in the second it is the gradient of nothing.",
        "Dot chart of the geometry of each method's update. " + " ".join(sentences),
        figure,
    )
