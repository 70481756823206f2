"""The verb ``report``: tables, figures and a page from results. It needs no torch."""

from __future__ import annotations

import argparse

from rich.console import Console

from benchmark.cli.flags import RESULTS, add_reports, folder, output

HELP = "tables and figures from results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=folder,
        nargs="+",
        default=[RESULTS],
        metavar="DIR",
        help=f"one or several; default: {RESULTS}",
    )
    add_reports(parser)


def main(arguments: argparse.Namespace, console: Console | None = None) -> int:
    """Print Table 1, then write the whole report and say where it is."""
    from benchmark.report import build
    from benchmark.report.listing import readable
    from benchmark.report.terminal import print_table

    console = console or output()
    print_table(readable(*arguments.results), console)
    for path in build.write(arguments.results, arguments.reports):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0
