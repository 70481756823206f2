"""The verb ``study``: does what a study file wants and is not there yet: tune, run, report.

Everything that was done is on disk, in runs, ``tuned.json`` and reports. The verb looks there what is due, so that it
can be killed anywhere, started again, and started beside itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmark.cli.flags import add_reports, output, place
from benchmark.cli.flags import log as stderr
from benchmark.cli.where import add_where, machinery, submit
from benchmark.errors import MissingData, UserError
from benchmark.runs import tune
from benchmark.runs.directory import RunDirectory, is_alive
from benchmark.runs.store import ENDED
from benchmark.runs.study import TRIALS, Stage, Study, read
from benchmark.runs.tune import SPACE, Tuning
from benchmark.screen import NARROW, warn
from benchmark.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from benchmark.runs.run import Context

HELP = "tune, run and report what a study file says"

CLOCK_NS = 10_000_000
"""How far the time of a file may lag behind the clock."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=place, metavar="FILE.toml", help="the study file; see docs/study.md")
    add_where(parser)
    add_reports(parser)


def main(arguments: argparse.Namespace) -> int:
    """Carry out ``study``: 0 when everything has its result, else 1."""
    study = read(arguments.file)
    try:
        _check(study, arguments.results, arguments.data_root)
    except MissingData as error:
        if not arguments.dry_run:
            raise
        warn(str(error))
    context, workers, device = machinery(arguments, study.stages[0].specs()[-1].meta_batch)
    context = dataclasses.replace(context, shared=True)
    if arguments.dry_run:
        print_standing(study, context, workers, output())
    if arguments.slurm is not None:
        return _submit(arguments, study)
    if arguments.dry_run:
        return 0
    log = stderr()
    _say_left(study, context, workers, log)
    tuning, whole = _tune(study, context, workers, device, log)
    for stage in study.stages:
        log.print(f"stage {stage.name}", markup=False, highlight=False)
        whole &= _carry_out(stage, tuning, context, workers, device, log)
        whole &= _report(context.results / stage.folder, arguments.reports / stage.folder, log)
        _say_left(study, context, workers, log)
    print_standing(study, context, workers, output())
    return 0 if whole else 1


def _submit(arguments: argparse.Namespace, study: Study) -> int:
    """Submit the study as one job. Of a tuned stage the names of its runs are known once it is tuned."""
    tuned = (arguments.results / TRIALS / "tuned.json").exists()
    recipes = ["controlled"] * bool(study.search) + [stage.recipe for stage in study.stages]
    placed = [
        (folder / spec.name if tuned or recipe != "tuned" else None, spec)
        for recipe, (_, folder, specs) in zip(recipes, places(study, arguments.results), strict=True)
        for spec in specs
    ]
    return submit(arguments, placed)


def _check(study: Study, results: Path, data_root: Path | None) -> None:
    """:class:`UserError` now for what would fail hours later: missing or other data, tasks that it cannot give."""
    from benchmark import data
    from benchmark.runs import assembly
    from benchmark.runs import run as runner

    specs = [spec for stage in study.stages for spec in stage.specs()]
    specs += study.search.plan(study.methods) if study.search else []
    alike: dict[str, Any] = {"seed": 0} | dict.fromkeys(SPACE, 1.0)  # what no check looks at
    for spec in {dataclasses.replace(spec, **alike): spec for spec in specs}.values():
        assembly.check(spec, data.load(spec.dataset, data_root))
    for stage in study.stages:
        dataset = data.load(stage.dataset, data_root)
        runner.require_same_images(stage.specs(), results / stage.folder, dataset)


def _tune(
    study: Study, context: Context, workers: int, device: torch.device, log: Console
) -> tuple[Tuning | None, bool]:
    from benchmark import data
    from benchmark.cli.tune import carry_out, print_choices

    if study.search is None:
        return None, True
    log.print("tuning", highlight=False)
    dataset = data.load(study.search.dataset, context.data_root)
    trials = dataclasses.replace(context, results=context.results / TRIALS)
    tuning, ended = carry_out(study.search, study.methods, trials, dataset, workers=workers, device=device)
    print_choices(tuning, log)
    return tuning, ended


def _carry_out(
    stage: Stage, tuning: Tuning | None, context: Context, workers: int, device: torch.device, log: Console
) -> bool:
    """All runs of a stage; whether all have a result."""
    from benchmark.runs import plan

    left_out = stage.untuned(tuning)
    if left_out:
        log.print(f"without a tuned choice, left out: {', '.join(left_out)}", markup=False, highlight=False)
    specs = stage.specs(tuning)
    origin = {method: tuning.record(method) for method in tuning.document["chosen"]} if tuning else {}
    context = dataclasses.replace(context, results=context.results / stage.folder, tuning=origin)
    states = plan.share_plan(specs, context, workers=workers, device=device)
    return all(state in ENDED for state in states.values())


def _report(results: Path, reports: Path, log: Console) -> bool:
    """Make the report on `results` if it is older than a run there; one process at a time. False if it cannot be."""
    from benchmark.files import locked
    from benchmark.report import write

    page = reports / "index.html"
    with locked(results):
        newest = max((path.stat().st_mtime_ns for path in results.glob("*/status.json")), default=0)
        if page.exists() and page.stat().st_mtime_ns > newest:
            return True
        began = time.time_ns() - CLOCK_NS
        try:
            write(results, reports)
            os.utime(page, ns=(began, began))  # a run that ended while the page was made is newer than it
        except UserError as error:
            log.print(f"no report: {error}", markup=False, highlight=False, soft_wrap=True)
            return False
    log.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    return True


# Where it stands


def places(study: Study, results: Path) -> list[tuple[str, Path, list[RunSpec]]]:
    """(stage, folder, runs) of the tuning and every stage, with the tuned values where they are known."""
    tuning = None
    found = []
    if study.search is not None:
        folder = results / TRIALS
        found.append(("tuning", folder, study.search.plan(study.methods)))
        tuning = tune.load(folder) if (folder / "tuned.json").exists() else None
    return found + [(stage.name, results / stage.folder, stage.specs(tuning)) for stage in study.stages]


def standing(spec: RunSpec, folder: Path) -> tuple[str, dict | None]:
    """``done``, ``held`` by a process that lives, ``begun`` or ``new``, ``unreadable``; and its status."""
    from benchmark.runs import run as runner

    try:
        due = runner.due(spec, folder)
        run = RunDirectory(folder, spec).run()
    except UserError:
        return "unreadable", None
    status = run.status if run else None
    if due == "done":
        return "done", status
    if is_alive(folder / spec.name):
        return "held", status
    return ("begun" if due == "resume" else "new"), status


def print_standing(study: Study, context: Context, workers: int, console: Console) -> None:
    """One line for each stage: its runs by state, and the time that is left."""
    from benchmark.runs.costs import in_words, roughly

    lines, total = _left(study, context, workers)
    where = f"{workers} worker{'s' if workers > 1 else ''}"
    title = f"{study.path}: {roughly(total)} left ({where})" if total else f"{study.path}: done"
    columns = ("done", "held", "begun", "new")[: 1 if console.width < NARROW else None]
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    table = Table("stage", "runs", *columns, "left, about", box=None)
    for name, states, seconds in lines:
        counts = [str(states.count(state)) for state in columns]
        left = in_words(seconds) + (f" ({states.count('unreadable')} unreadable)" if "unreadable" in states else "")
        table.add_row(name, str(len(states)), *counts, left)
    console.print(table)


def _say_left(study: Study, context: Context, workers: int, log: Console) -> None:
    from benchmark.runs.costs import roughly

    lines, total = _left(study, context, workers)
    count = sum(state != "done" for _, states, _ in lines for state in states)
    runs = sum(len(states) for _, states, _ in lines)
    text = f"{count} of {runs} runs left, {roughly(total)}" if count else f"all {runs} runs done"
    log.print(text, markup=False, highlight=False)


def _left(study: Study, context: Context, workers: int) -> tuple[Sequence[tuple[str, list[str], float]], float]:
    """By stage: the state of each run, and seconds left; and the seconds of all."""
    from benchmark.runs.costs import Costs
    from benchmark.runs.environment import choose_device

    found = places(study, context.results)
    folders = dict.fromkeys(folder for _, folder, _ in found)
    device = choose_device(context.device)
    costs = Costs(folders, workers=workers, device=device, data_root=context.data_root)
    lines = []
    for name, folder, specs in found:
        judged = [(spec, *standing(spec, folder)) for spec in specs]
        try:
            seconds = sum(costs.left(spec, status) for spec, state, status in judged if state != "done")
        except MissingData:
            seconds = math.nan
        lines.append((name, [state for _, state, _ in judged], seconds))
    return lines, sum(seconds for _, _, seconds in lines)
