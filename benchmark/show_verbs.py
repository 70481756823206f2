"""The verbs ``list`` and ``status``: what there is, and where each run stands."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from benchmark import recipes, store
from benchmark.errors import UserError
from benchmark.flags import add_data_root, add_results, output
from benchmark.spec import RECIPES

WHAT = ("methods", "data", "networks", "presets", "runs")


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="METHOD|" + "|".join(WHAT), help="one method in full, or one list alone"
    )
    parser.add_argument("--methods", action="store_const", const="methods", dest="name", help="the methods alone")
    add_results(parser)
    add_data_root(parser)


def list_(arguments: argparse.Namespace) -> None:
    """Print what `arguments.name` asks for, or all but the runs."""
    console, name = output(), arguments.name
    if name == "runs":
        from benchmark.report.cli import list_runs

        list_runs(arguments, console)
        return
    if name is not None and name not in WHAT:
        from benchmark import cards

        try:
            cards.show(name, console)
        except ValueError as error:
            raise UserError(f"{error}; or list one of {', '.join(WHAT)}") from None
        return
    shown = {"methods": _methods, "data": _data_sets, "networks": _networks, "presets": _presets}
    for word in [name] if name else shown:
        shown[word](console, arguments)


def _methods(console: Console, arguments: argparse.Namespace) -> None:
    import optimizers

    table = Table("method", "what it is", "geometry", title="methods", title_justify="left", box=None)
    for name in optimizers.available():
        card = optimizers.card(name)
        also = [alias for alias, own in optimizers.aliases.items() if own == name]
        title = (
            card.title if "reconstructed" in card.title or not card.reconstructed else f"{card.title} (reconstructed)"
        )
        table.add_row(f"{name} ({', '.join(also)})" if also else name, title, card.geometry)
    console.print(table)
    for name, reason in optimizers.broken().items():
        console.print(f"plug-in {name} cannot be used: {reason}", markup=False, highlight=False)


def _data_sets(console: Console, arguments: argparse.Namespace) -> None:
    from benchmark import data

    table = Table("data set", "state", title="\ndata sets", title_justify="left", box=None)
    for entry in data.available(arguments.data_root):
        table.add_row(str(entry["name"]), str(entry.get("state", "")))
    console.print(table)
    console.print(" how to get what is missing: python -m benchmark data list", highlight=False, soft_wrap=True)


def _networks(console: Console, arguments: argparse.Namespace) -> None:
    from benchmark import networks

    console.print(f"\nnetworks      {', '.join(networks.available())}", highlight=False)


def _presets(console: Console, arguments: argparse.Namespace) -> None:
    console.print(f"recipes       {', '.join(RECIPES)}", highlight=False)
    for preset in recipes.PRESETS:
        own = (f"{name} {entry.values['iterations']:,}" for name, entry in recipes.CONTROLLED[preset].items())
        text = ", ".join(own).replace("*", "any other")
        console.print(f"preset {preset:<6} meta-steps: {text}", highlight=False)


def status(arguments: argparse.Namespace) -> None:
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
        if state == "running" and not store.is_alive(run.path):
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
