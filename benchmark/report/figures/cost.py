"""What a meta-gradient and an evaluation of one task cost, as ``time`` measured it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from benchmark.report.figures.draw import Drawing, drawing, legend_below, name_lines, panels, shown
from benchmark.report.findings import like_for_like
from benchmark.report.published import method_order, method_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = ((-0.2, "meta_gradient", "#0072b2", None), (0.2, "evaluation", "#e69f00", "///"))


def cost(table: pd.DataFrame, names: Mapping[str, str] | None = None) -> Drawing | None:
    """Meta-gradient and evaluation by method, a panel for each size at which most were timed; with peers.

    `names`: what readers call a method, where runs say it. A panel names its processor where they differ.
    """
    known = table.dropna(subset=["meta_gradient_ms"])
    if known.empty:
        return None
    known = known.sort_values("method", key=lambda names: names.map(lambda name: method_order(name)[0]), kind="stable")
    sizes = [
        (key, like_for_like(rows, "method")) for key, rows in known.groupby(["image_size", "channels"], sort=False)
    ]
    widest = max(rows["method"].nunique() for _, rows in sizes)
    sizes = [(key, rows) for key, rows in sizes if 2 * rows["method"].nunique() >= widest]
    most = max(len(rows) for _, rows in sizes)
    devices = [rows["device"].iloc[0] if "device" in rows else "" for _, rows in sizes]
    title = {method: method_title(method) for method in known["method"]} | dict(names or {})

    def picture(narrow: bool) -> Figure:
        figure, axes = panels(len(sizes), narrow, height=0.9 + 0.25 * most)
        for axis, ((size, width), rows), device in zip(axes, sizes, devices, strict=True):
            for shift, quantity, color, hatch in BARS:
                values = rows[f"{quantity}_ms"].tolist()
                places = [place + shift for place in range(len(rows))]
                label = quantity.replace("_", "-")
                bars = axis.barh(places, values, 0.4, color=color, hatch=hatch, label=label, linewidth=0)
                axis.bar_label(bars, fmt=_ms, padding=2, fontsize=6)
            axis.margins(x=0.15)
            on = f", {shown(device, 24)}" if len(set(devices)) > 1 and device else ""
            axis.set_title(f"{size:.0f}×{size:.0f}, CNN4-{width:.0f}{on}")
            axis.set_xlabel("ms per task")
            name_lines([axis], [title[name] for name in rows["method"]])
        legend_below(figure, axes)
        return figure

    told = [
        f"{title[str(row.method)]} at {row.image_size:.0f} pixels and {row.channels:.0f} channels: "
        f"{_ms(row.meta_gradient_ms)} ms."
        for row in known.itertuples()
    ]
    return drawing(
        "cost",
        "Cost of one task: a meta-gradient (K steps, the query loss and its gradient) and an evaluation, medians. "
        "Panels are sizes, timed apart: compare bars within a panel alone.",
        "Bar charts of the time of a meta-gradient and an evaluation by method. " + " ".join(told),
        picture,
    )


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
