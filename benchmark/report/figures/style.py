"""One look for every figure: colour-blind safe, readable in print and in grey.

Colours are Okabe and Ito's (2008) with darkened yellow, and Tol's muted ones for what came after Table 1; a method is
also told by its dashes and marker, so that no figure depends on colour alone. A known method has the same look in every
figure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LineStyle:
    """Colour, dash pattern and marker of one row."""

    color: str
    dashes: Any
    marker: str


KNOWN = {
    "pixels": LineStyle("#6b6b6b", (0, (1, 2)), "x"),
    "maml": LineStyle("#000000", "solid", "o"),
    "metasgd": LineStyle("#0072b2", (0, (5, 1.5)), "s"),
    "mtnet": LineStyle("#cc79a7", (0, (1, 1)), "v"),
    "warpgrad": LineStyle("#a07c00", (0, (3, 1, 1, 1)), "P"),
    "metacurvature": LineStyle("#009e73", (0, (7, 1.5, 1.5, 1.5)), "^"),
    "metakfo": LineStyle("#3c8fc4", (0, (3, 1, 1, 1, 1, 1)), "X"),
    "ecml": LineStyle("#7a5195", (0, (2, 1)), "<"),
    "md": LineStyle("#d55e00", "solid", "D"),
    "md-released": LineStyle("#9b4400", (0, (4, 1, 1, 1)), "d"),
    "md-convex": LineStyle("#e69f00", (0, (6, 1)), "*"),
    "mamlpp": LineStyle("#555555", (0, (5, 1)), "h"),
    "alfa": LineStyle("#117733", (0, (2, 1)), "p"),
    "alfa-released": LineStyle("#117733", (0, (5, 1, 1, 1)), ">"),
    "momentum": LineStyle("#2f8577", (0, (7, 1)), "H"),
    "adam": LineStyle("#cc6677", (0, (1, 1)), "h"),
    "gap": LineStyle("#882255", "solid", "p"),
    "gap-released": LineStyle("#882255", (0, (4, 1, 1, 1)), "H"),
    "gap-approx": LineStyle("#aa4499", (0, (5, 1)), "p"),
    "cavia": LineStyle("#7f7f1f", (0, (2, 1)), ">"),
    "metaproxnet": LineStyle("#332288", "solid", "8"),
}
SPARE = [
    LineStyle(color, dashes, marker)
    for marker, color, dashes in (
        ("h", "#0072b2", (0, (1, 1))),
        ("p", "#009e73", (0, (2, 1))),
        (">", "#d55e00", (0, (5, 1))),
        ("8", "#7a5195", "solid"),
        ("H", "#a07c00", (0, (7, 1))),
    )
]

GUIDE = "#555555"
"""Colour of lines that guide the eye: zero, the training horizon, a front."""

WIDE, COLUMN = 7.16, 3.5
"""Inches of both columns and of one column of a two-column page: a figure goes into LaTeX unscaled."""

PAPER = ("maml", "metasgd", "metacurvature", "md", "md-released")
"""The methods of the paper's Fig. 1, mirror descent as repaired and as released: bold where many lines cross."""

RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.8,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "inner-optimizer-benchmark",
}


def weight(method: str) -> dict[str, Any]:
    """Line properties that set the paper's methods before the rest."""
    if method in PAPER:
        return {"linewidth": 1.9, "markersize": 4.2, "zorder": 3}
    return {"linewidth": 0.9, "markersize": 2.8, "zorder": 2, "alpha": 0.75}


def looks(rows: Sequence[tuple[str, str]]) -> dict[str, LineStyle]:
    """Label → look for (method, label) pairs. Variants of a method keep its colour and take spare dashes and marks."""
    chosen: dict[str, LineStyle] = {}
    seen: dict[str, int] = {}
    strangers = [method for method in dict.fromkeys(method for method, _ in rows) if method not in KNOWN]
    for method, label in rows:
        base = KNOWN.get(method) or SPARE[strangers.index(method) % len(SPARE)]
        turn = seen.get(method, 0)
        seen[method] = turn + 1
        spare = SPARE[(turn - 1) % len(SPARE)]
        chosen[label] = base if turn == 0 else LineStyle(base.color, spare.dashes, spare.marker)
    return chosen


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw inside this: our settings on matplotlib's defaults, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield
