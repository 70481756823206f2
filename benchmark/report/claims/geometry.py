"""Claims about the mirror map itself: what a step costs, and whether the map is monotone."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchmark.report.claims.trace import MIRROR
from benchmark.report.claims.verdict import FAILS, HOLDS, UNREFUTED, UNTESTABLE, Check
from benchmark.report.findings import Findings, growth, like_for_like
from benchmark.report.published import method_title
from benchmark.report.words import signed

LINEAR = 1.1
"""Costs that grow with d to at most this power are called O(d)."""

LEAST_WIDTHS = 3
"""So many widths of a network show a power; two give one whatever the truth."""


def linear(timing: pd.DataFrame) -> list[Check]:
    """How the cost of one step grows with d over the widths of a network, at each image size by itself.

    The operations counted decide; the time measured under one set of conditions, at small sizes that of starting them,
    stands beside.
    """
    checks = []
    for method in MIRROR:
        rows = timing[timing["method"] == method].dropna(subset=["parameters", "multiply_adds"])
        for size, found in rows.groupby("image_size", dropna=False):
            where = "unknown image size" if pd.isna(size) else f"{size:.0f}×{size:.0f} images"
            timed = like_for_like(found.dropna(subset=["transform_ms"]), "parameters").drop_duplicates("parameters")
            times = dict(zip(timed["parameters"], timed["transform_ms"], strict=True))
            found = found.drop_duplicates("parameters").sort_values("parameters")
            evidence = ", ".join(
                f"d = {row.parameters:,.0f}: {row.multiply_adds / row.parameters:.1f} multiply-adds per parameter"
                + (f" in {times[row.parameters]:.3g} ms" if row.parameters in times else "")
                for row in found.itertuples()
            )
            number, verdict = "one width", UNTESTABLE
            if len(found) > 1:
                exponent = growth(found["parameters"].tolist(), found["multiply_adds"].tolist())
                number = f"operations d^{exponent:.2f}"
                if len(times) > 1:
                    spent = growth(list(times), list(times.values()))
                    number += f", time d^{signed(spent, '.2f', plus='')}"
                verdict = HOLDS if exponent <= LINEAR else FAILS
            if len(found) < LEAST_WIDTHS:
                verdict = UNTESTABLE
                evidence = f"needs at least {LEAST_WIDTHS} widths at one image size, has {len(found)}; {evidence}"
            checks.append(Check(where, method_title(method), verdict, number, evidence))
    return checks


def monotone(findings: Findings) -> list[Check]:
    """The least eigenvalue of the symmetric part of each map's Jacobian that was met anywhere.

    The theorem is of all points and parameters: one point refutes it, no number of points proves it. The identity start
    is no evidence and is left out.
    """
    checks = []
    for method in MIRROR:
        points = list(_points(findings, method))
        if not points:
            continue
        least, residual, where = min(points, key=lambda point: point[0] + point[1])  # the strongest evidence
        refuted = least + residual < 0
        evidence = f"over {len(points)} point{'s' * (len(points) > 1)}"
        rows = findings.geometry[(findings.geometry["method"] == method) & (findings.geometry["stage"] == "trained")]
        if rows["asymmetry"].notna().any():
            evidence += f"; asymmetry up to {rows['asymmetry'].max():.2g} (0: the map is a gradient)"
        number = f"least eigenvalue {signed(least, '.3g')}" + (f" (within {residual:.1g})" if residual > 0 else "")
        checks.append(Check(where, method_title(method), FAILS if refuted else UNREFUTED, number, evidence))
    return checks


def _points(findings: Findings, method: str) -> Iterator[tuple[float, float, str]]:
    """(least eigenvalue, how far it may be off, where) of every point that was looked at, but for the start."""
    tables = (
        (findings.geometry[findings.geometry["stage"] == "trained"], "on tasks"),
        (findings.search, ""),
    )
    for table, place in tables:
        for row in table[table["method"] == method].dropna(subset=["least"]).to_dict("records"):
            residual = float(row["residual"]) if row["residual"] == row["residual"] else 0.0
            theta = row["run"] or row.get("theta") or "a trained map"
            yield float(row["least"]), residual, f"{theta}, {place or row['point']}"
