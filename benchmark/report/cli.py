"""The verbs that read results: ``report``, ``compare``, ``list runs``, ``export``. None of them needs torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from benchmark.store import Run

LEVELS = ("all", "runs", "tasks", "steps")


def readable(results: Path) -> list[Run]:
    """The runs below `results`; those that cannot be read are named on standard error, and hide nothing else."""
    from benchmark.store import load_runs

    return load_runs(results, lambda text: print(f"left out: {text}", file=sys.stderr), tables=True)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``report``."""
    _add_results(parser)
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="default: reports")


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Print Table 1, then write the whole report and say where it is."""
    from benchmark.report import build
    from benchmark.report.terminal import print_table

    print_table(readable(arguments.results), console)
    for path in build.write(arguments.results, arguments.reports):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``compare A B``."""
    parser.add_argument("a", metavar="A", help="a method, a row's label in quotes, or a results folder")
    parser.add_argument("b", metavar="B", help="another of the same kind")
    _add_results(parser)


def compare(arguments: argparse.Namespace, console: Console) -> int:
    """Print the paired difference and the ratio of cost of two methods or two folders."""
    from benchmark.report.compare import compare, show

    show(compare(arguments.a, arguments.b, arguments.results), console)
    return 0


def list_runs(arguments: argparse.Namespace, console: Console) -> int:
    """Print every run in ``arguments.results``."""
    from benchmark.report.listing import print_runs

    print_runs(readable(arguments.results), console)
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``export``."""
    _add_results(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="ends in .csv, .csv.gz or .parquet (needs pyarrow); default: CSV on standard output",
    )  # fmt: skip
    parser.add_argument(
        "--level", default="all", metavar="|".join(LEVELS),
        help="one line for each number, run, test task or inner step; default: all",
    )  # fmt: skip


def export(arguments: argparse.Namespace, console: Console) -> int:
    """Write one tidy table of everything."""
    from benchmark.report.export import frame, write

    table = frame(readable(arguments.results), arguments.level)
    if arguments.output is None:
        table.to_csv(sys.stdout, index=False)
        return 0
    write(table, arguments.output)
    console.print(f"{arguments.output}: {len(table):,} lines", markup=False, highlight=False, soft_wrap=True)
    return 0
