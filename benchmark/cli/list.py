"""The verb ``list``: methods, data sets, networks, presets and runs, or one method in full."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark import recipes
from benchmark.cli.flags import add_data_root, add_results, output
from benchmark.errors import UserError
from benchmark.spec import RECIPES
from optimizers.cards import KINDS

HELP = "methods, data sets, networks, presets, runs; or one method in full"
WHAT = ("methods", "data", "networks", "presets", "runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="METHOD|" + "|".join(WHAT), help="one method in full, or one list alone"
    )
    parser.add_argument("--methods", action="store_true", help="the methods alone")
    parser.add_argument("--bibtex", action="store_true", help="how to cite the method, or all of them")
    add_results(parser)
    add_data_root(parser)


def main(arguments: argparse.Namespace) -> None:
    """Print what `arguments.name` asks for, or all but the runs."""
    console, name = output(), arguments.name
    if arguments.methods:
        if name not in (None, "methods"):
            raise UserError(f"--methods lists the methods, and {name!r} is something else; give one of the two")
        name = "methods"
    if arguments.bibtex and name in (None, "methods"):
        _bibtex(console)
        return
    if arguments.bibtex and name in WHAT:
        raise UserError(f"--bibtex is for methods, got {name!r}; name one, or leave the name out for all")
    if name == "runs":
        from benchmark.report.listing import print_runs, readable

        print_runs(readable(arguments.results), console)
        return
    if name is not None and name not in WHAT:
        import optimizers
        from benchmark.cli import cards

        try:
            if arguments.bibtex:
                _bibtex(console, optimizers.resolve(name))
            else:
                cards.show(name, console)
        except ValueError as error:
            raise UserError(f"{error}; or list one of {', '.join(WHAT)}") from None
        return
    shown = {"methods": _methods, "data": _data_sets, "networks": _networks, "presets": _presets}
    for word in [name] if name else shown:
        shown[word](console, arguments)


def _bibtex(console: Console, *names: str) -> None:
    """The entries of the methods `names`, or of all; that of a paper with several methods once."""
    import optimizers
    from optimizers import pages

    entries = dict.fromkeys(pages.bibtex(name) for name in names or optimizers.available())
    console.print("\n\n".join(entries), markup=False, highlight=False, soft_wrap=True)


def _methods(console: Console, arguments: argparse.Namespace) -> None:
    import optimizers

    cards = {name: optimizers.card(name) for name in optimizers.available()}
    kinds = dict.fromkeys([*KINDS, *sorted({card.kind for card in cards.values()})])
    table = Table("method", "what it is, and what is learned", title="methods", title_justify="left", box=None)
    for kind in kinds:
        members = {name: card for name, card in cards.items() if card.kind == kind}
        if members:
            table.add_row(Text(kind, style="bold"), Text(KINDS.get(kind, ""), style="italic"))
        for name, card in members.items():
            also = [alias for alias, own in optimizers.aliases.items() if own == name]
            doubt = " (reconstructed)" if card.reconstructed and "reconstructed" not in card.title else ""
            what = Text.assemble(f"{card.title}{doubt}\n", (card.learned, "dim"))
            table.add_row(Text(f"  {name}" + (f" ({', '.join(also)})" if also else "")), what)
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
