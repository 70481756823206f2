"""What a tuning found: how accuracy depends on α, and how soon the best trial came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmark.report.figures.draw import Drawing, drawing, name_ends, panels, plain_log, shown
from benchmark.report.figures.style import PAPER, looks, weight
from benchmark.report.findings import Findings
from benchmark.report.published import method_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUIET = "#c9c9c9"
"""Colour of the trials of all other methods."""


def draw(findings: Findings) -> list[Drawing]:
    """Both figures; none without trials that have an accuracy."""
    table = findings.trials
    scored = table[np.isfinite(table["accuracy"]) & np.isfinite(table["alpha"])]
    return [alpha(findings, scored), best(findings, scored)] if len(scored) else []


def alpha(findings: Findings, scored: pd.DataFrame) -> Drawing:
    """Meta-validation accuracy of each trial against its α, a panel for each method."""
    methods = list(dict.fromkeys(findings.trials["method"]))
    styles = looks([(method, method_title(method)) for method in methods])
    tops = {method: rows.loc[rows["accuracy"].idxmax()] for method, rows in scored.groupby("method")}
    floor = 100 * float(scored["accuracy"].min())

    def picture(narrow: bool) -> Figure:
        across = 2 if narrow else 5
        figure, axes = panels(len(methods), False, height=1.35, across=across, sharey=True)
        if narrow:
            figure.set_figwidth(figure.get_figwidth() * 3.5 / 7.16)
        for place, (axis, method) in enumerate(zip(axes, methods, strict=True)):
            look = styles[method_title(method)]
            axis.plot(scored["alpha"], 100 * scored["accuracy"], ".", color=QUIET, markersize=3, zorder=1)
            own = scored[scored["method"] == method]
            axis.plot(
                own["alpha"], 100 * own["accuracy"], marker=look.marker, color=look.color, markersize=4.5,
                linestyle="none", markerfacecolor="white",
            )  # fmt: skip
            lost = findings.trials[(findings.trials["method"] == method) & (findings.trials["state"] == "diverged")]
            axis.plot(lost["alpha"], [floor] * len(lost), marker="x", color=look.color, linestyle="none", markersize=4)
            if method in tops:
                top = tops[method]
                axis.plot(top["alpha"], 100 * top["accuracy"], marker=look.marker, color=look.color, markersize=5.5)
            axis.set_xscale("log")
            plain_log(axis.xaxis)
            axis.set_title(shown(method_title(method), 18), fontsize=7.5)
            if place % across == 0:
                axis.set_ylabel("accuracy, %")
            if place >= len(methods) - across:
                axis.set_xlabel("α")
        return figure

    told = [
        f"{method_title(str(m))}: best {100 * row['accuracy']:.1f} % at α = {row['alpha']:g}."
        for m, row in tops.items()
    ]
    return drawing(
        "alpha",
        f"Sensitivity to the inner step size α, {findings.trials_of}: meta-validation accuracy of every trial, the "
        "best filled, a cross for one that diverged, those of all methods in grey. Each trial has learning rates of "
        "its own, so that the upper edge of the cloud is what α allows.",
        "Scatter charts of validation accuracy against α. " + " ".join(told),
        picture,
    )


def best(findings: Findings, scored: pd.DataFrame) -> Drawing:
    """The best meta-validation accuracy among the first trials, by their number."""
    methods = list(dict.fromkeys(scored["method"]))
    styles = looks([(method, method_title(method)) for method in methods])
    lines = {}
    for method, rows in findings.trials.groupby("method"):
        rising = rows.sort_values("trial").set_index("trial")["accuracy"].fillna(-np.inf).cummax()
        lines[str(method)] = 100 * rising[np.isfinite(rising)]

    def picture(narrow: bool) -> Figure:
        figure, (axis,) = panels(1, narrow, height=2.8)
        for method in methods:
            line, look = lines[method], styles[method_title(method)]
            axis.plot(
                line.index + 1, line, drawstyle="steps-post", color=look.color, linestyle=look.dashes,
                marker=look.marker, label=method_title(method), **weight(method),
            )  # fmt: skip
        axis.set(xlabel="trials", ylabel="best accuracy so far, %")
        axis.xaxis.get_major_locator().set_params(integer=True)
        ends = [(float(lines[m].iloc[-1]), method_title(m), styles[method_title(m)].color, m in PAPER) for m in methods]
        name_ends(axis, ends)
        return figure

    told = [
        f"{method_title(m)}: {lines[m].iloc[0]:.1f} % first, {lines[m].iloc[-1]:.1f} % at the end." for m in methods
    ]
    return drawing(
        "trials",
        f"What tuning buys, {findings.trials_of}: the best meta-validation accuracy of the trials so far. A line that "
        "still rises would gain from more of them; all methods met the same points in the same order.",
        "Line chart of the best validation accuracy against the number of trials. " + " ".join(told),
        picture,
    )
