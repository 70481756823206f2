"""The verb ``merge``: results folders of several machines into one."""

from __future__ import annotations

import argparse

from benchmark.cli.flags import folder
from benchmark.screen import say, warn

HELP = "results folders of several machines into one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=folder, metavar="DIR", help="results folders, left as they are")
    parser.add_argument(
        "--into", type=folder, required=True, metavar="DIR", help="the folder that they are copied into"
    )


def main(arguments: argparse.Namespace) -> None:
    """Copy every run that is new or further than the one that is there, and say how many there were."""
    from benchmark.runs.merge import merge

    merged = merge(arguments.folders, arguments.into)
    say(f"{len(merged.new)} new, {len(merged.further)} further than before, {len(merged.kept)} there already")
    for remark in merged.remarks:
        warn(remark)
