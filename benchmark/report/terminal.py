"""The table in the terminal: inside 80 columns, coloured where somebody looks, Markdown where a pipe reads."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from benchmark.report import pairs
from benchmark.report.group import TableGroup, group_runs
from benchmark.report.published import RECONSTRUCTED, dataset_title, reference
from benchmark.report.words import NONE, plus_minus, text
from benchmark.runs.store import Run
from benchmark.screen import one_line

SHOTS_A_TABLE = 2
"""Columns of two numbers of shots are what 80 characters hold; of one where there is a spread over seeds."""


def print_table(runs: Sequence[Run], console: Console) -> None:
    """Print Table 1 of `runs`, one table for each data set, ways and recipe."""
    groups = group_runs(list(runs))
    if not groups:
        console.print("No runs to show.")
        return
    compared = pairs.frame(groups)
    for group in groups:
        step = SHOTS_A_TABLE if max(map(group.seeds, group.shots)) < 2 else 1
        for start in range(0, len(group.shots), step):
            _print_group(group, group.shots[start : start + step], compared, console)


def _print_group(group: TableGroup, shots: list[int], compared: pd.DataFrame, console: Console) -> None:
    printed = reference(group.dataset, group.ways)
    title = one_line(f"{group.ways}-way {dataset_title(group.dataset)}, {group.protocol}")
    if (seeds := group.seeds(shots[0])) > 1:
        title += f", {seeds} seeds"
    rich = RichTable(
        title=escape(title) if console.is_terminal else None,
        box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN,
        title_justify="left",
        pad_edge=not console.is_terminal,
    )
    if not console.is_terminal:
        console.print(escape(title))
    rich.add_column("Method", overflow="fold")
    for number in shots:
        if printed.numbers:
            rich.add_column(f"{number}-shot\npaper", justify="right", style="dim", no_wrap=False)
        rich.add_column(f"{number}-shot\nours", justify="right", overflow="fold")
    best = {number: pairs.best(compared, group, number) for number in shots}
    for row in group.rows:
        line = [escape(row.label) + (" *" if row.reconstructed else "")]
        for number in shots:
            if printed.numbers:
                known = printed.printed(row.method, number) if row.plain else None
                line.append(plus_minus(known.mean, known.half) if known else NONE)
            shown = escape(text(row.cells.get(number), group.seeds(number)))
            line.append(f"[bold]{shown}[/bold]" if row.label in best[number] else shown)
        rich.add_row(*line)
    console.print(rich)
    if printed.numbers:
        other = printed.title != dataset_title(group.dataset)
        console.print(
            f"paper: published, on {printed.title}" + (", another data set" if other else ""),
            style="dim",
            highlight=False,
        )
    spread = " ± standard deviation over seeds" if max(map(group.seeds, shots)) > 1 else ""
    console.print(f"ours: mean ± 95 % over test tasks{spread}", style="dim", highlight=False)
    if any(row.reconstructed for row in group.rows):
        console.print(f"* {RECONSTRUCTED}", style="dim", highlight=False)
