"""The verb ``run``: flags into specs, specs into a plan, the plan into results and a table.

Flags are made from the fields of :class:`benchmark.spec.RunSpec`: a knob that exists has a flag.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from benchmark import recipes
from benchmark.cli.flags import add_option, folder, integers, method_options, output, without
from benchmark.cli.where import add_where, machinery, submit
from benchmark.errors import MissingData, UserError
from benchmark.runs import tune
from benchmark.runs.directory import RunDirectory
from benchmark.runs.grid import LISTED, methods_named, with_baseline
from benchmark.runs.store import ENDED
from benchmark.screen import NARROW, warn
from benchmark.spec import RECIPES, RunSpec

HELP = "meta-train methods, then measure them on new tasks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", required=True, metavar="A,B|all", help="which methods; see the verb list")
    parser.add_argument("--shots", type=integers("--shots"), default=(1,), metavar="N[,N]", help="default: 1")
    parser.add_argument("--seeds", type=integers("--seeds"), default=(0,), metavar="N[,N]", help="default: 0")
    parser.add_argument(
        "--recipe",
        default="controlled",
        metavar="|".join(RECIPES),
        help="one setting for all, each method's own, or what was tuned for it; default: controlled",
    )
    parser.add_argument(
        "--tuning",
        type=lambda text: tune.load(folder(text)),
        metavar="DIR",
        help="where tune wrote the values of the recipe tuned",
    )
    add_option(parser)
    add_knobs(parser)
    add_where(parser)
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs side by side, each with its share of the cores or a GPU"
    )
    parser.add_argument(
        "--shared", action="store_true", help="leave runs to other processes that are at them; the longest first"
    )


def add_knobs(parser: argparse.ArgumentParser, *, left_out: Sequence[str] = ()) -> None:
    """A preset, and a flag for every knob but those `left_out`."""
    parser.add_argument(
        "--preset",
        default=None,
        metavar="|".join(recipes.PRESETS),
        help="size of the controlled recipe; default: quick",
    )
    knobs = parser.add_argument_group("knobs (default: the recipe's)")
    for knob in dataclasses.fields(RunSpec):
        if knob.name not in (*LISTED, *left_out):
            knobs.add_argument(
                f"--{knob.name.replace('_', '-')}",
                type=_value(knob),
                default=None,
                metavar="|".join(knob.metadata.get("choices") or ()) or str(knob.type).upper(),
                help=knob.metadata["help"],
            )


def knobs_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The knobs that flags of :func:`add_knobs` give."""
    names = (knob.name for knob in dataclasses.fields(RunSpec) if knob.name not in LISTED)
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


def _value(knob: dataclasses.Field) -> Callable[[str], Any]:
    kind = {"int": int, "float": float, "str": str}[str(knob.type)]

    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            flag = f"--{knob.name.replace('_', '-')}"
            raise UserError(f"{flag} must be {'a whole number' if kind is int else 'a number'}, got {text!r}") from None

    return parse


def plan(arguments: argparse.Namespace) -> list[RunSpec]:
    """The runs that the flags of ``run`` describe, methods in the order given; without the baseline."""
    overrides = knobs_given(arguments)
    dataset = overrides.get("dataset", "glyphs")
    methods = methods_named(arguments.methods.split(","))
    tuned = _tuned_values(arguments, methods, overrides)
    if arguments.preset and arguments.recipe == "published":
        raise UserError("--preset sizes the controlled recipe; the published one has its own sizes, so leave it out")
    options = method_options(arguments.option, methods)
    specs = []
    for seed in arguments.seeds:
        for shots in arguments.shots:
            for method in methods:
                chosen = overrides | tuned[method] | {"seed": seed, "options": options.get(method, {})}
                specs.append(
                    recipes.resolve(
                        method,
                        dataset,
                        shots=shots,
                        recipe_name=arguments.recipe,
                        preset=arguments.preset or recipes.PRESETS[0],
                        overrides=chosen,
                    )
                )
    return specs


def _tuned_values(
    arguments: argparse.Namespace, methods: Sequence[str], overrides: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """By method: what its tuning chose; nothing for the other recipes."""
    tuning: tune.Tuning | None = arguments.tuning
    if (tuning is not None) != (arguments.recipe == "tuned"):
        raise UserError("--recipe tuned and --tuning DIR, the folder with its tuned.json, go together; give both")
    if tuning is None:
        return {method: {} for method in methods}
    for name in tune.SPACE:
        if name in overrides:
            raise UserError(f"--{name.replace('_', '-')} is what was tuned; leave it out, or take --recipe controlled")
    return {method: tuning.values(method) for method in methods}


def main(arguments: argparse.Namespace) -> int:
    """Carry out ``run``: 0 when every run has a result, else 1."""
    if arguments.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {arguments.jobs}")
    if arguments.jobs > 1 and arguments.slurm is not None:
        raise UserError("--jobs is for one machine, and --slurm for a cluster, whose file says jobs = N; give one")
    specs = plan(arguments)
    from benchmark import data
    from benchmark.cli.jobs import side_by_side
    from benchmark.runs import assembly
    from benchmark.runs import plan as plans
    from benchmark.runs import run as runner
    from benchmark.runs.costs import Costs

    tuning: tune.Tuning | None = arguments.tuning
    try:
        dataset = data.load(specs[0].dataset, arguments.data_root)
    except MissingData as error:
        if not arguments.dry_run:
            raise
        warn(str(error))
        dataset = None
    if tuning is not None:
        if dataset is not None:
            tuning.require(specs, dataset.hash)
        others = sorted({spec.shots for spec in specs} - {tuning.document["shots"]})
        if others:
            warn(f"tuned at {tuning.document['shots']}-shot, run at {', '.join(map(str, others))}")
    remark = recipes.remark(specs, arguments.preset or recipes.PRESETS[0])
    specs = with_baseline(specs)
    if dataset is not None:
        for spec in specs:
            assembly.check(spec, dataset)
        runner.require_same_images(specs, arguments.results, dataset)
    context, workers, device = machinery(arguments, specs[-1].meta_batch)
    if tuning is not None:
        methods = {spec.method for spec in specs} & tuning.document["chosen"].keys()
        context = dataclasses.replace(context, tuning={method: tuning.record(method) for method in methods})
    if arguments.dry_run:
        print_plan(specs, arguments.results, f"{device.type}, {workers} worker{'s' if workers > 1 else ''}", remark)
    elif remark:
        warn(remark)
    if arguments.slurm is not None:
        return submit(arguments, [(arguments.results / spec.name, spec) for spec in specs], ("--shared",))
    if arguments.dry_run:
        return 0
    if arguments.jobs > 1:
        words = without(shlex.split(arguments.command_line)[3:], valued=("--jobs",))
        status = side_by_side([*words, "--shared"], arguments.jobs, device.type)
        _print_results(specs, arguments.results)
        return status
    if arguments.shared:
        costs = Costs([arguments.results], workers=workers, device=device, data_root=arguments.data_root)
        specs = sorted(specs, key=lambda spec: -costs.left(spec, None))
        context = dataclasses.replace(context, shared=True)
        states = plans.share_plan(specs, context, workers=workers, device=device, wait=False)
    else:
        states = plans.launch_plan(specs, context, workers=workers, device=device)
    if os.environ.get("RANK", "0") == "0":
        _print_results(specs, arguments.results)
    return 0 if all(state in (*ENDED, "held") for state in states.values()) else 1


def print_plan(specs: Sequence[RunSpec], results: Path, where: str, remark: str = "") -> None:
    from benchmark.runs import run as runner

    count = f"{len(specs)} run{'s' if len(specs) > 1 else ''}"
    console = output()
    names = ["run", "state", "iterations", "channels", "α", "K"][: 2 if console.width < NARROW else None]
    table = Table(*(Column(name, overflow="fold") for name in names), title=f"{count} ({where})", box=None)
    for spec in specs:
        trained = spec.method != recipes.BASELINE
        numbers = (str(spec.iterations), str(spec.channels), f"{spec.alpha:g}", f"{spec.steps}/{spec.eval_steps}")
        row = [spec.name, runner.due(spec, results), *(numbers if trained else ("–",) * 4)]
        table.add_row(*row[: len(names)])
    console.print(table)
    for line in _other_knobs([spec for spec in specs if spec.method != recipes.BASELINE]):
        console.print(line, markup=False, highlight=False)
    if remark:
        console.print(remark, markup=False, highlight=False, soft_wrap=True)


def _other_knobs(specs: Sequence[RunSpec]) -> Iterator[str]:
    """The knobs that neither the table of a plan nor the names of its runs show: what all share, then the rest."""
    shown = {*LISTED, "method", "dataset", "ways", "shots", "seed", "recipe", "iterations", "channels", "alpha"}
    shown |= {"steps", "eval_steps", "options"}
    values = {
        knob.name: [getattr(spec, knob.name) for spec in specs]
        for knob in dataclasses.fields(RunSpec)
        if knob.name not in shown
    }
    alike = [name for name, found in values.items() if len(set(found)) == 1]
    if specs:
        yield f"all: {', '.join(f'{name} {_plain(values[name][0])}' for name in alike)}"
    several = {  # what tells runs of one method apart
        name: len({(spec.method, getattr(spec, name)) for spec in specs}) > len({spec.method for spec in specs})
        for name in ("shots", "alpha")
    }
    own: dict[str, list[str]] = {}
    for number, spec in enumerate(specs):
        given = [f"{name} {_plain(found[number])}" for name, found in values.items() if name not in alike]
        given += [f"{key}={_plain(value)}" for key, value in spec.options.items()]
        where = f" {spec.shots}-shot" * several["shots"] + f" α {spec.alpha:g}" * several["alpha"]
        own.setdefault(", ".join(given), []).append(f"{spec.method}{where}")
    for text, runs in own.items():
        if text:
            yield f"{', '.join(dict.fromkeys(runs))}: {text}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print_results(specs: Sequence[RunSpec], results: Path) -> None:
    from benchmark.report import terminal

    found = []
    for spec in specs:
        try:
            run = RunDirectory(results, spec).run()
        except UserError as error:  # damaged: it costs its own row
            warn(f"left out: {error}")
        else:
            found += [run] if run is not None else []
    terminal.print_table(found, output())
