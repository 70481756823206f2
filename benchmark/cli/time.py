"""The verb ``time``: what a step of every method costs, beside other people's code on the same work."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from benchmark.cli.flags import add_reports, add_results, output
from benchmark.errors import UserError
from benchmark.files import keyed_rows, merge_rows, require_writable
from benchmark.runs.grid import methods_named
from benchmark.screen import NARROW

if TYPE_CHECKING:
    import pandas as pd

HELP = "per-step cost of each method, beside other libraries"

SIZES = "84:64,32:64,32:32"
MOST = {"shots": 1000, "steps": 10_000, "rounds": 100_000, "tasks": 10_000, "threads": 1024}
"""What a flag may be at most; image sides and widths have bounds of their own."""
LARGEST, WIDEST = 1024, 4096
TIMES: dict[str, tuple[str, Callable[[float], str]]] = {
    "adapt_step_ms": ("adapt\nstep", "{:.2f}".format),
    "transform_ms": ("transform", "{:.2f}".format),
    "meta_gradient_ms": ("meta-\ngradient", "{:.1f}".format),
    "meta_gradient_to_maml": ("×\nmaml", "{:.2f}".format),
    "meta_gradient_to_higher": ("×\nhigher", "{:.2f}".format),
    "evaluation_ms": ("evaluation", "{:.1f}".format),
    "evaluation_to_higher": ("×\nhigher", "{:.2f}".format),
}
IN_SHORT = ("meta_gradient_ms", "meta_gradient_to_maml")
"""What a narrow terminal shows of them."""
COUNTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "multiply_adds": ("multiply-adds\nof a step", "{:,.0f}".format),
    "meta_parameters": ("meta-parameters", "{:,.0f}".format),
    "flops": ("operations, a\nmeta-gradient", "{:.3g}".format),
    "peak_share": ("of\npeak", "{:.0%}".format),
    "peak_mib": ("memory,\nMiB", "{:.0f}".format),
}
"""What the printed tables show of ``timing.csv``: heading and format."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", default="all", metavar="A,B|all", help="default: all")
    parser.add_argument("--peers", action="store_true", help="time the library higher and plain autograd, too")
    parser.add_argument(
        "--sizes",
        default=SIZES,
        metavar="PIXELS:CHANNELS[,…]",
        help=f"image sizes and widths of CNN4; default: {SIZES}",
    )
    parser.add_argument("--shots", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--steps", type=int, default=5, metavar="K", help="inner steps; default: 5")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each work; default: 7")
    parser.add_argument("--tasks", type=int, default=1, metavar="T", help="tasks at once, times per task; default: 1")
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as torch takes")
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "cpu"), help="wall time, or the processor's; default: wall"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …; default: auto")
    parser.add_argument("--strategy", default="auto", metavar="loop|vmap|auto", help="how tasks are batched")
    add_results(parser)
    add_reports(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the table of each size; add it to ``timing.csv`` in results, and draw the figure ``cost`` in reports.

    A row replaces that of the same method, size and conditions, all others stay. The figure shows every row of these
    conditions.
    """
    import torch

    from benchmark.report.findings import CONDITIONS, TIMING_ABSENT, TIMING_KEY
    from benchmark.runs.environment import choose_device
    from benchmark.timing import measure, peers

    for flag in ("shots", "steps", "rounds", "tasks", "threads"):
        value = getattr(arguments, flag)
        if value is not None and not 1 <= value <= MOST[flag]:
            raise UserError(f"--{flag} must lie between 1 and {MOST[flag]:,}, got {value}")
    methods = methods_named(arguments.methods.split(","))
    workloads = [
        peers.Workload(size, width, shots=arguments.shots, steps=arguments.steps)
        for size, width in _sizes(arguments.sizes)
    ]
    path = arguments.results / "timing.csv"
    for target in (path, *_figures(arguments.reports)):
        require_writable(target)
    keyed_rows(path, TIMING_KEY, TIMING_ABSENT)  # what cannot be added to is said before the work, not after it
    device = choose_device(arguments.device)
    if arguments.peers:
        if device.type != "cpu":
            raise UserError(f"--peers are timed on the CPU, which says nothing beside {device}; add --device cpu")
        peers.installed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = output()
    with _fitting(), console.status("") if console.is_terminal else _Silent() as status:
        table = measure.measure(
            methods,
            workloads,
            rounds=arguments.rounds,
            with_peers=arguments.peers,
            device=device,
            strategy=arguments.strategy,
            tasks=arguments.tasks,
            clock=arguments.clock,
            on_turn=status.update,
        )
    show(table, console)
    whole = merge_rows(path, table, TIMING_KEY, absent=TIMING_ABSENT, float_format="%.6g")
    alike = (whole[list(CONDITIONS)] == table.iloc[0][list(CONDITIONS)]).all(axis=1)
    for written in (path, *save(whole[alike], arguments.reports)):
        console.print(str(written), highlight=False)
    return 0


def _sizes(text: str) -> list[tuple[int, int]]:
    found = [re.fullmatch(r"(\d+):(\d+)", part.strip()) for part in text.split(",")]
    if not all(found):
        raise UserError(f"--sizes takes PIXELS:CHANNELS separated by commas, such as {SIZES}, got {text!r}")
    sizes = [(int(match[1]), int(match[2])) for match in found if match]
    for size, width in sizes:
        if not 16 <= size <= LARGEST or not 1 <= width <= WIDEST:
            raise UserError(f"--sizes {size}:{width}: cnn4 takes 16 to {LARGEST} pixels and 1 to {WIDEST} channels")
    return list(dict.fromkeys(sizes))


def show(table: pd.DataFrame, console: Console) -> None:
    """One table for each size."""
    for (size, width, device), rows in table.groupby(["image_size", "channels", "device"], sort=False):
        one = rows.iloc[0]
        title = (
            f"{size}×{size}, CNN4-{width}, 5-way {one['shots']}-shot, {one['queries']} queries per class, "
            f"K = {one['steps']}, {device}, {one['threads']} thread{'s' if one['threads'] > 1 else ''}: "
            f"medians of {one['rounds']}, {one['clock']} time per task, ms"
        )
        narrow = console.width < NARROW
        console.print(title, style="italic", highlight=False, soft_wrap=True)
        console.print(_columns(rows, {name: TIMES[name] for name in IN_SHORT} if narrow else TIMES))
        console.print()
        counted = rows[rows["multiply_adds"].notna()]
        console.print(_columns(counted, {"multiply_adds": COUNTS["multiply_adds"]} if narrow else COUNTS))
        share = one["episode_ms"] / rows["meta_gradient_ms"].min()
        console.print(
            f"\nDrawing a task's images: {one['episode_ms']:.2f} ms, {share:.1%} of the least meta-gradient.\n"
        )


def _columns(rows: pd.DataFrame, columns: dict[str, tuple[str, Callable[[float], str]]]) -> Table:
    shown = [name for name in columns if name in rows and rows[name].notna().any()]
    printed = Table(Column("method", no_wrap=True), box=None)
    for name in shown:
        printed.add_column(columns[name][0], justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        values = {name: row[name] for name in shown}
        cells = ["" if v is None or v != v else columns[name][1](v) for name, v in values.items()]
        printed.add_row(row["method"], *cells)
    return printed


def save(table: pd.DataFrame, folder: Path) -> list[Path]:
    """The figure ``cost``, which the page of a report has too: meta-gradient and evaluation, a panel for each size."""
    from benchmark.report.figures.cost import cost
    from benchmark.report.figures.draw import write
    from benchmark.report.figures.style import styled

    with styled():
        drawing = cost(table)
        if drawing is None:
            return []
        paths = _figures(folder)
        for path in paths:
            write(drawing.figure, path)
    return paths


def _figures(folder: Path) -> list[Path]:
    return [folder / "cost.png", folder / "cost.pdf"]


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    from benchmark.runs.assembly import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError("these sizes do not fit into memory; lower --sizes or --tasks") from error


class _Silent:
    """Stands in for a status line where there is no terminal."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def update(self, text: str) -> None:
        pass
