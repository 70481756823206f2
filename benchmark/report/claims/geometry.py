"""Claims about the mirror map itself: what a step costs, and whether the map is monotone."""

from __future__ import annotations

import pandas as pd

from benchmark.report.claims.trace import MIRROR
from benchmark.report.claims.verdict import FAILS, HOLDS, UNKNOWN, Check
from benchmark.report.findings import growth
from benchmark.report.published import method_title

LINEAR = 1.1
"""Costs that grow with d to at most this power are called O(d)."""


def linear(timing: pd.DataFrame) -> list[Check]:
    """How the multiply-adds of one step grow with d, for every mirror-descent method that was timed."""
    checks = []
    for method in MIRROR:
        rows = timing[(timing["method"] == method)].dropna(subset=["parameters", "multiply_adds"])
        if rows.empty:
            continue
        exponent = growth(rows["parameters"].tolist(), rows["multiply_adds"].tolist())
        evidence = ", ".join(
            f"d = {row.parameters:,.0f}: {row.multiply_adds / row.parameters:.1f} multiply-adds per parameter"
            for row in rows.drop_duplicates("parameters").sort_values("parameters").itertuples()
        )
        if exponent != exponent:
            number, verdict = "one size only", UNKNOWN
        else:
            number, verdict = f"cost grows as d^{exponent:.2f}", HOLDS if exponent <= LINEAR else FAILS
        checks.append(Check("several network widths", method_title(method), verdict, number, evidence))
    return checks


def monotone(geometry: pd.DataFrame) -> list[Check]:
    """The smallest eigenvalue of the symmetric part of the Jacobian of every map that was looked at."""
    checks = []
    rows = geometry[geometry["method"].isin(MIRROR)]
    for (method, stage, run), found in rows.groupby(["method", "stage", "run"], sort=False):
        found = found.dropna(subset=["least"])
        where = f"{stage or 'unknown stage'}{f', {run}' if run else ''}"
        if found.empty:
            checks.append(Check(where, method_title(method), UNKNOWN, "–", "smallest eigenvalue not measured"))
            continue
        worst = found.loc[found["least"].idxmin()]
        smallest, residual = float(worst["least"]), float(worst["residual"])
        asymmetry = found["asymmetry"].dropna()
        evidence = f"over {len(found)} point{'s' * (len(found) > 1)}" + (
            f"; asymmetry up to {asymmetry.max():.2g} (0: the map is a gradient)" if len(asymmetry) else ""
        )
        # a negative estimate is a direction in which the map turns back; a positive one must clear what it may be off
        verdict = FAILS if smallest <= 0 else UNKNOWN if smallest <= residual else HOLDS
        number = f"smallest eigenvalue {smallest:+.3g}" + (f" (within {residual:.1g})" if residual > 0 else "")
        checks.append(Check(where, method_title(method), verdict, number, evidence))
    return checks
