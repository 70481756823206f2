"""The report as files: reads the runs once, writes every part whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmark.report import figures, table
from benchmark.report.group import Group, group_runs
from benchmark.report.style import styled
from benchmark.store import load_runs, write_atomic


def write(results: Path, reports: Path) -> list[Path]:
    """Make the whole report on `results` under `reports`; returns the files written, in order."""
    groups = group_runs(load_runs(results))
    written = []
    for name, content in (
        ("table1.md", table.markdown(groups)),
        ("table1.csv", table.frame(groups).to_csv(index=False)),
        ("table1.tex", table.latex(groups)),
    ):
        write_atomic(reports / name, content.encode())
        written.append(reports / name)
    with styled():
        for drawing in drawings(groups):
            written += figures.save(drawing, reports / "figures")
    return written


def drawings(groups: list[Group]) -> Iterator[figures.Drawing]:
    """Every figure that these groups give, one at a time."""
    for group in groups:
        for shots in group.shots:
            drawing = figures.fig1(group, shots)
            if drawing is not None:
                yield drawing
