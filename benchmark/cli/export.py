"""The verb ``export``: one tidy table of everything in results."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from benchmark.cli.flags import add_results, output, place
from benchmark.files import require_writable, without_formulas
from benchmark.screen import kept_going

HELP = "one tidy table of everything in results"
LEVELS = ("all", "runs", "tasks", "steps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument(
        "--output", type=place, metavar="FILE",
        help="ends in .csv, .csv.gz or .parquet (needs pyarrow); default: CSV on standard output",
    )  # fmt: skip
    parser.add_argument(
        "--level", default="all", metavar="|".join(LEVELS),
        help="one line for each number, run, test task or inner step; default: all",
    )  # fmt: skip


def main(arguments: argparse.Namespace, console: Console | None = None) -> int:
    """Write the table."""
    from benchmark.report.export import frame, write
    from benchmark.report.listing import readable

    if arguments.output is not None:
        require_writable(arguments.output)
    table = frame(readable(arguments.results), arguments.level)
    if arguments.output is None:
        with kept_going(sys.stdout):
            without_formulas(table).to_csv(sys.stdout, index=False)
        return 0
    write(table, arguments.output)
    console = console or output()
    console.print(f"{arguments.output}: {len(table):,} lines", markup=False, highlight=False, soft_wrap=True)
    return 0
