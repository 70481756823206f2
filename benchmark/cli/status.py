"""The verb ``status``: where each run stands, once or until nothing changes any more."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from benchmark.cli.flags import add_results, output
from benchmark.runs.standing import Standing, Survey, survey
from benchmark.screen import NARROW, Screen, one_line, warn

HELP = "where each run stands"

WATCH_S = 10.0
"""How often ``--watch`` looks: no oftener than the scheduler is asked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--watch", action="store_true", help="follow until nothing runs or waits in a queue")


def main(arguments: argparse.Namespace) -> None:
    """Print where each run stands, those of a study's folders below included, such as its trials.

    One that says running, but that no process holds, was killed. Runs that a submitted job is to take are queued.
    """
    console = output()
    if arguments.watch:
        _watch(arguments.results, console)
        return
    _print(survey(arguments.results), console)


def _watch(results: Path, console: Screen) -> None:
    """Show how it stands again and again: in place in a terminal, one after another in a pipe."""
    found = survey(results)
    if not console.is_terminal:
        _print(found, console)
    with (
        Live(_screen(found, console.width), console=console, auto_refresh=False)
        if console.is_terminal
        else nullcontext() as live
    ):
        while found.busy:
            time.sleep(WATCH_S)
            found = survey(results)
            if live is None:
                _print(found, console)
            else:
                live.update(_screen(found, console.width), refresh=True)


def _print(found: Survey, console: Screen) -> None:
    table, lines = _shown(found, console.width)
    console.print(table)
    for line in lines:
        console.say(line)
    for text in found.refused:
        warn(f"left out: {text}")


def _screen(found: Survey, width: int) -> Group:
    table, lines = _shown(found, width)
    lines += [f"left out: {text}" for text in found.refused]
    return Group(table, *(Text(one_line(line)) for line in lines))


def _shown(found: Survey, width: int) -> tuple[Table, list[str]]:
    """The table, with speed and place where something runs or waits; then counts, jobs, and what runs have to say."""
    placed = any(each.where for each in found.runs)
    names = ["run", "state", "iteration", *(["it/s", "where"] if placed else []), "validation", "updated, UTC"]
    names = names[: 2 if width < NARROW else None]
    table = Table(*(Column(name, overflow="fold") for name in names), box=None)
    for each in found.runs:
        table.add_row(*(escape(one_line(word)) for word in _row(each, placed)[: len(names)]))
    counts = Counter(each.state for each in found.runs)
    told = [", ".join(f"{count} {state}" for state, count in sorted(counts.items()))] if len(counts) > 1 else []
    notes = [
        f"{each.path.rpartition('/')[2]}: its tables were damaged or edited; 'run' measures them again"
        for each in found.runs
        if each.state == "damaged"
    ]
    notes += [
        f"{each.run.name}: {each.run.status['message']}"
        for each in found.runs
        if each.run and each.state != "queued" and each.run.status.get("message")
    ]
    return table, [*told, *found.jobs, *notes]


def _row(each: Standing, placed: bool) -> list[str]:
    status, spec = (each.run.status, each.run.spec) if each.run else ({}, {"iterations": 0})
    total = spec["iterations"]
    best = status.get("best_score")
    speed = f"{each.per_s:.1f}" if each.per_s and each.state == "running" else "–"
    return [
        each.path,
        each.state,
        f"{status.get('iteration', 0)}/{total}" if total else "–",
        *([speed, each.where] if placed else []),
        "–" if best is None else f"{100 * best:.1f} %" if best >= 0 else f"loss {-best:.3g}",
        status.get("updated", "")[:16].replace("T", " "),
    ]
