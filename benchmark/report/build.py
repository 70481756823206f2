"""The report as files: reads the runs once, writes every part whole.

::

    reports/
        index.html            everything on one page
        table1.md .csv .tex   Table 1
        pairs.md .csv         who beats whom
        claims.md .csv        the paper's claims
        tuning.md             what was chosen for tuned rows, where there are any
        warnings.md           what to know before believing a number
        figures/              every figure as PNG, PDF and SVG
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from benchmark.errors import UserError
from benchmark.files import without_formulas, write_atomic
from benchmark.report import caveats, formats, matrix, pairs, table, tuning
from benchmark.report.claims import judge
from benchmark.report.figures import cost, draw, fig1, geometry, plots, trials
from benchmark.report.figures.style import styled
from benchmark.report.findings import Findings
from benchmark.report.findings import read as read_findings
from benchmark.report.group import TableGroup, group_runs
from benchmark.report.html import page
from benchmark.report.published import TITLES
from benchmark.runs.merge import load_together

MANY = 16
"""From this many figures on it pays to start processes that save them."""


def write(results: Path | Sequence[Path], reports: Path) -> list[Path]:
    """Make the whole report on `results`, one folder or several, under `reports`; returns the files written, in order.

    A run, or a table beside the runs, that cannot be read is left out, and named among the warnings. With nothing to
    show an earlier report is kept: :class:`UserError`.
    """
    refused: list[str] = []
    folders = [results] if isinstance(results, Path) else list(results)
    runs = load_together(folders, refused.append, tables=True)
    findings = read_findings(*folders, refused=refused.append)
    if not runs and findings.empty and (reports / "index.html").exists():
        named = ", ".join(map(str, folders))
        raise UserError(f"{named}: has nothing that can be shown; the report in {reports} is left as it is")
    groups = group_runs(runs)
    compared = pairs.frame(groups)
    judged = judge.judge(groups, compared, findings)
    warned = [f"left out: {text}" for text in refused] + caveats.warnings(groups)
    tables = table.tables(groups, findings, compared)
    parts = {
        "table1.md": formats.markdown(tables),
        "table1.csv": without_formulas(table.frame(tables)).to_csv(index=False),
        "table1.tex": formats.latex(tables),
        "pairs.md": matrix.markdown(groups, compared),
        "pairs.csv": without_formulas(compared).to_csv(index=False),
        "claims.md": judge.markdown(judged),
        "claims.csv": without_formulas(judge.frame(judged)).to_csv(index=False),
        "warnings.md": "# Before you believe a number\n\n"
        + "".join(f"- {formats.escape_markdown(text)}\n" for text in warned or ["Nothing to warn of."]),
    }
    tuned = tuning.markdown(groups)
    if tuned:
        parts["tuning.md"] = tuned
    else:
        (reports / "tuning.md").unlink(missing_ok=True)  # an earlier report's
    written = [_write(reports / name, content) for name, content in parts.items()]
    with styled():
        drawn = list(drawings(groups, compared, findings))
        written += save_all(drawn, reports / "figures")
    remove_stale(reports / "figures", {drawing.stem for drawing in drawn})
    content = page.Content(runs, groups, tables, compared, judged, drawn, reports / "figures", warned)
    return [_write(reports / "index.html", page.render(content)), *written]


def _write(path: Path, content: str) -> Path:
    write_atomic(path, content.encode())
    return path


def drawings(groups: Sequence[TableGroup], compared: pd.DataFrame, findings: Findings) -> Iterator[draw.Drawing]:
    """Every figure that these groups give, one at a time."""
    for group in groups:
        for shots in group.shots:
            drawing = fig1.fig1(group, shots)
            if drawing is not None:
                yield drawing
        yield from plots.draw(group, compared, findings)
    yield from trials.draw(findings)
    yield from geometry.draw(findings)
    rows = [row for group in groups for row in group.rows if row.method not in TITLES]
    names = {row.method: row.label.partition(" (")[0] for row in rows}
    spent = cost.cost(findings.timing, names)
    if spent is not None:
        yield spent


def save_all(drawn: Sequence[draw.Drawing], folder: Path) -> list[Path]:
    """Save every drawing in every format; many of them in processes, one for each core."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = min(os.cpu_count() or 1, len(drawn) // 8)
    if len(drawn) < MANY or workers < 2:
        return [path for drawing in drawn for path in draw.save(drawing, folder)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        saved = pool.map(_save, drawn, [folder] * len(drawn), chunksize=4)
        return [path for paths in saved for path in paths]


def remove_stale(folder: Path, stems: set[str]) -> None:
    """Delete the figures of an earlier report that this one does not have: nobody would see that they are old."""
    kind = re.compile(rf"({'|'.join(draw.KINDS)})(-[a-z0-9-]+)?")
    for path in folder.iterdir():
        stem = path.stem.removesuffix(draw.NARROW)
        if path.suffix[1:] in draw.FORMATS and stem not in stems and kind.fullmatch(stem):
            path.unlink()


def _save(drawing: draw.Drawing, folder: Path) -> list[Path]:
    with styled():
        return draw.save(drawing, folder)
