"""Flags and output that several verbs share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmark.errors import UserError

RESULTS = Path("results")


def add_results(parser: argparse._ActionsContainer, default: Path = RESULTS) -> None:
    parser.add_argument("--results", type=Path, default=default, metavar="DIR", help=f"default: {default}")


def add_data_root(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="imported data sets; default: $BENCHMARK_DATA or the user's cache folder",
    )


def integers(flag: str) -> Callable[[str], tuple[int, ...]]:
    """The type of a flag that takes whole numbers separated by commas, each once."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(dict.fromkeys(int(part) for part in text.split(",")))
        except ValueError:
            raise UserError(f"{flag} must be whole numbers separated by commas, got {text!r}") from None

    return parse


def output() -> Console:
    """Standard output; in a pipe 200 columns wide, whatever the terminal is."""
    return Console() if sys.stdout.isatty() else Console(width=200)
