"""The verb ``compare``: paired difference and ratio of cost of two methods, two norms or two results folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmark.cli.flags import add_results, output

HELP = "two methods, norms or results folders: paired difference, ratio of cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a method, a row's label in quotes, a norm, or a results folder")
    parser.add_argument("b", metavar="B", help="another of the same kind")
    add_results(parser)


def main(arguments: argparse.Namespace, console: Console | None = None) -> int:
    """Print the paired difference and the ratio of cost."""
    from benchmark.report.compare import compare, show
    from optimizers import aliases

    a, b = (name if Path(name).is_dir() else aliases.get(name, name) for name in (arguments.a, arguments.b))
    show(compare(a, b, arguments.results), console or output())
    return 0
