"""The verb ``tune``: an equal budget of trials for every method, and what they choose."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmark.cli.flags import output
from benchmark.cli.run import add_knobs, knobs_given, print_plan
from benchmark.cli.where import add_where, machinery, submit
from benchmark.errors import MissingData
from benchmark.runs import tune
from benchmark.runs.grid import methods_named
from benchmark.runs.store import ENDED
from benchmark.runs.tune import SPACE, Search, Tuning
from benchmark.screen import NARROW, warn

if TYPE_CHECKING:
    import torch

    from benchmark import data
    from benchmark.runs import run as runner

HELP = "choose step sizes alike for all methods, by meta-validation"

RESULTS = Path("results/tuning")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", required=True, metavar="A,B|all", help="which methods; see the verb list")
    parser.add_argument("--trials", type=int, default=Search.trials, metavar="N", help="default: 8")
    parser.add_argument("--shots", type=int, default=Search.shots, metavar="N", help="default: 1")
    parser.add_argument("--seed", type=int, default=Search.seed, metavar="N", help="of points and runs; default: 0")
    add_knobs(parser, left_out=(*SPACE, "tasks"))
    add_where(parser, results=RESULTS)


def main(arguments: argparse.Namespace) -> int:
    """Carry out ``tune``: 0 when every trial of every method ended, else 1."""
    methods = methods_named(arguments.methods.split(","))
    knobs = knobs_given(arguments)
    search = Search(
        dataset=knobs.pop("dataset", "glyphs"),
        shots=arguments.shots,
        seed=arguments.seed,
        trials=arguments.trials,
        iterations=knobs.pop("iterations", Search.iterations),
        preset=arguments.preset or "quick",
        knobs=knobs,
    )
    plan = search.plan(methods)
    from benchmark import data
    from benchmark.runs import assembly

    try:
        dataset = data.load(search.dataset, arguments.data_root)
        for spec in plan[: len(methods)]:
            assembly.check(spec, dataset)
    except MissingData as error:
        if not arguments.dry_run:
            raise
        warn(str(error))
    context, workers, device = machinery(arguments, plan[0].meta_batch)
    if arguments.dry_run:
        print_plan(plan, arguments.results, f"{device.type}, {workers} worker{'s' if workers > 1 else ''}")
    if arguments.slurm is not None:
        return submit(arguments, [(arguments.results / spec.name, spec) for spec in plan])
    if arguments.dry_run:
        return 0
    tuning, ended = carry_out(search, methods, context, dataset, workers=workers, device=device)
    print_choices(tuning, output())
    return 0 if ended else 1


def carry_out(
    search: Search,
    methods: Sequence[str],
    context: runner.Context,
    dataset: data.Dataset,
    *,
    workers: int,
    device: torch.device,
) -> tuple[Tuning, bool]:
    """Bring all trials to their end, beside other processes that do the same, and choose; and whether all ended."""
    from benchmark.runs import plan as plans
    from benchmark.runs import run as runner

    runner.require_same_images(search.plan(methods), context.results, dataset)
    tune.check(context.results, search, dataset.hash)
    context = dataclasses.replace(context, shared=True)
    states = plans.share_plan(search.plan(methods), context, workers=workers, device=device)
    return tune.write(context.results, search, methods, dataset.hash), all(state in ENDED for state in states.values())


def print_choices(tuning: Tuning, console: Console) -> None:
    """One line for each method: the chosen values, which of them lie at an edge, and their validation accuracy."""
    document = tuning.document
    title = (
        f"{document['trials']} trials of {document['iterations']:,} meta-steps each, {document['shots']}-shot; "
        "* the smallest or largest value drawn"
    )
    console.print(title, style="italic", highlight=False, soft_wrap=True)
    narrow = console.width < NARROW
    table = Table("method", *(("chosen",) if narrow else ("trial", *SPACE, "validation")), box=None)
    for method, chosen in document["chosen"].items():
        values = [f"{chosen[name]:g}" + ("*" if name in chosen["edge"] else "") for name in SPACE]
        score = f"{100 * chosen['score']:.1f} %" if chosen["accuracy"] is not None else f"loss {-chosen['score']:.3g}"
        named = ", ".join(f"{name} {value}" for name, value in zip(SPACE, values, strict=True))
        table.add_row(method, *((f"{named}; {score}",) if narrow else (str(chosen["trial"]), *values, score)))
    console.print(table)
    for method, why in document["without_choice"].items():
        console.print(f"{method}: {why}", markup=False, highlight=False)
    for path in (tuning.path.with_name("tuning.csv"), tuning.path):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
