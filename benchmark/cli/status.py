"""The verb ``status``: where each run stands."""

from __future__ import annotations

import argparse
import sys

from rich.markup import escape
from rich.table import Column, Table

from benchmark.cli.flags import add_results, output
from benchmark.runs import store
from benchmark.runs.directory import is_alive

HELP = "where each run stands"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)


def main(arguments: argparse.Namespace) -> None:
    """Print where each run stands, those of a study's folders below included, such as its trials.

    One that says running, but that no process holds, was killed.
    """
    runs = []
    for folder in store.results_folders(arguments.results):
        runs += store.load_runs(folder, lambda text: print(f"left out: {text}", file=sys.stderr))
    table = Table(Column("run", overflow="fold"), "state", "iteration", "validation", "updated, UTC", box=None)
    notes = []
    for run in runs:
        state = run.state
        if state == "running" and not is_alive(run.path):
            state = "killed"
        best = run.status.get("best_score")
        iteration, total = run.status.get("iteration", 0), run.spec["iterations"]
        table.add_row(
            run.path.relative_to(arguments.results).as_posix(),
            state,
            f"{iteration}/{total}" if total else "–",
            "–" if best is None else f"{100 * best:.1f} %" if best >= 0 else f"loss {-best:.3g}",
            escape(run.status.get("updated", "")[:16].replace("T", " ")),
        )
        if run.status.get("message"):
            notes.append(f"{run.name}: {run.status['message']}")
    console = output()
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
