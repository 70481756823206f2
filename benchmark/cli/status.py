"""The verb ``status``: where each run stands."""

from __future__ import annotations

import argparse

from rich.markup import escape
from rich.table import Column, Table

from benchmark.cli.flags import NARROW, add_results, output
from benchmark.runs import store
from benchmark.runs.directory import is_alive
from benchmark.screen import one_line, warn

HELP = "where each run stands"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)


def main(arguments: argparse.Namespace) -> None:
    """Print where each run stands, those of a study's folders below included, such as its trials.

    One that says running, but that no process holds, was killed.
    """
    runs = []
    for folder in store.results_folders(arguments.results):
        runs += store.load_runs(folder, lambda text: warn(f"left out: {text}"))
    console = output()
    columns = ("state", "iteration", "validation", "updated, UTC")[: 1 if console.width < NARROW else None]
    table = Table(Column("run", overflow="fold"), *columns, box=None)
    notes = []
    for run in runs:
        state = run.state
        if state == "running" and not is_alive(run.path):
            state = "killed"
        if state == "finished" and not run.is_intact():
            state = "damaged"
            notes.append(one_line(f"{run.name}: its tables were damaged or edited; 'run' measures them again"))
        best = run.status.get("best_score")
        iteration, total = run.status.get("iteration", 0), run.spec["iterations"]
        line = (
            escape(one_line(run.path.relative_to(arguments.results).as_posix())),
            state,
            f"{iteration}/{total}" if total else "–",
            "–" if best is None else f"{100 * best:.1f} %" if best >= 0 else f"loss {-best:.3g}",
            escape(run.status.get("updated", "")[:16].replace("T", " ")),
        )
        table.add_row(*line[: 1 + len(columns)])
        if run.status.get("message"):
            notes.append(one_line(f"{run.name}: {run.status['message']}"))
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
