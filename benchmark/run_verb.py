"""The verb ``run``: flags into specs, specs into a plan, the plan into results and a table.

Flags are made from the fields of :class:`benchmark.spec.RunSpec`: a knob that exists has a flag.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from benchmark import recipes, store
from benchmark.errors import UserError, nearest
from benchmark.flags import add_data_root, add_option, add_results, integers, method_options, output
from benchmark.spec import RECIPES, RunSpec

LISTED = ("method", "options", "shots", "seed")
"""Knobs that ``run`` takes as lists, under flags of their own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", required=True, metavar="A,B|all", help="which methods; see the verb list")
    parser.add_argument("--shots", type=integers("--shots"), default=(1,), metavar="N[,N]", help="default: 1")
    parser.add_argument("--seeds", type=integers("--seeds"), default=(0,), metavar="N[,N]", help="default: 0")
    parser.add_argument(
        "--recipe",
        default="controlled",
        metavar="|".join(RECIPES),
        help="one setting for all, or each method's own; default: controlled",
    )
    parser.add_argument(
        "--preset",
        default=None,
        metavar="|".join(recipes.PRESETS),
        help="size of the controlled recipe; default: quick",
    )
    add_option(parser)
    knobs = parser.add_argument_group("knobs (default: the recipe's)")
    for knob in dataclasses.fields(RunSpec):
        if knob.name not in (*LISTED, "recipe"):
            knobs.add_argument(
                f"--{knob.name.replace('_', '-')}",
                type=_value(knob),
                default=None,
                metavar=str(knob.type).upper(),
                help=knob.metadata["help"],
            )
    where = parser.add_argument_group("where")
    add_results(where)
    add_data_root(where)
    where.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …; default: auto")
    where.add_argument("--strategy", default="auto", metavar="loop|vmap|auto", help="how tasks are batched")
    where.add_argument(
        "--recompute",
        action="store_true",
        help="repeat inner steps in the backward pass: memory does not grow with --steps",
    )
    where.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes that share the tasks; default: one per core (at most the meta-batch), or one per GPU",
    )
    where.add_argument("--dry-run", action="store_true", help="print the plan and stop")


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
    """The runs that the flags of ``run`` describe, methods in the order given; the floor is :func:`with_floor`'s."""
    import optimizers

    overrides = {}
    for knob in dataclasses.fields(RunSpec):
        value = getattr(arguments, knob.name, None)
        if value is not None and knob.name not in (*LISTED, "recipe"):
            overrides[knob.name] = value
    dataset = overrides.get("dataset", "glyphs")
    methods = [word.strip() for word in arguments.methods.split(",") if word.strip()]
    if not methods:
        raise UserError("--methods is empty; name some, or all")
    known = optimizers.available()
    if "all" in methods:
        methods = known
    try:
        methods = list(dict.fromkeys(optimizers.resolve(word) for word in methods if word != recipes.FLOOR))
    except ValueError as error:
        raise UserError(str(error)) from None
    if not methods:
        raise UserError(
            f"{recipes.FLOOR} is measured beside every method and is none itself; name a method in --methods"
        )
    if arguments.preset and arguments.recipe == "published":
        raise UserError("--preset sizes the controlled recipe; the published one has its own sizes, so leave it out")
    options = method_options(arguments.option, methods)
    specs = []
    for seed in arguments.seeds:
        for shots in arguments.shots:
            for method in methods:
                chosen = overrides | {"seed": seed, "options": options.get(method, {})}
                specs.append(
                    recipes.resolve(
                        method,
                        dataset,
                        shots=shots,
                        recipe_name=arguments.recipe,
                        preset=arguments.preset or "quick",
                        overrides=chosen,
                    )
                )
    return specs


def with_floor(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """`specs`, each preceded by the floor run of its protocol where none of those before has it."""
    found: dict[RunSpec, None] = {}
    for spec in specs:
        found |= {recipes.floor(spec): None, spec: None}
    return list(found)


def main(arguments: argparse.Namespace) -> int:
    """Carry out ``run``: 0 when every run has a result, else 1."""
    specs = plan(arguments)
    from benchmark import assembly, data, environment, parallel, plans, runner
    from benchmark.metagrad import STRATEGIES

    dataset = data.load(specs[0].dataset, arguments.data_root)
    if dataset.kind == "images":
        specs = with_floor(specs)
    for spec in specs:
        assembly.check(spec, dataset)
    device = environment.choose_device(arguments.device)
    if arguments.strategy not in STRATEGIES:
        raise UserError(
            f"unknown strategy {arguments.strategy!r}{nearest(arguments.strategy, STRATEGIES)}; "
            f"expected one of {', '.join(STRATEGIES)}"
        )
    workers = (
        arguments.workers if arguments.workers is not None else parallel.default_workers(device, specs[-1].meta_batch)
    )
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    if arguments.dry_run:
        _print_plan(specs, arguments.results, f"{device.type}, {workers} worker{'s' if workers > 1 else ''}")
        return 0
    context = runner.Context(
        results=arguments.results,
        data_root=arguments.data_root,
        device=arguments.device,
        strategy=arguments.strategy,
        recompute=arguments.recompute,
        command=portable(shlex.split(arguments.command_line)),
    )
    states = plans.launch_plan(specs, context, workers=workers, device=device)
    _print_results(specs, arguments.results)
    return 0 if all(state in ("finished", "diverged") for state in states.values()) else 1


def portable(words: Sequence[str]) -> tuple[str, ...]:
    """A command without the flags that say where files lie: results are moved, and read on other machines."""
    kept: list[str] = []
    value_of_a_place = False
    for word in words:
        flag, equals, _ = word.partition("=")
        if value_of_a_place:
            value_of_a_place = False
        elif flag in ("--results", "--data-root"):
            value_of_a_place = not equals
        else:
            kept.append(word)
    return tuple(kept)


def _print_plan(specs: Sequence[RunSpec], results: Path, where: str) -> None:
    from benchmark import runner

    count = f"{len(specs)} run{'s' if len(specs) > 1 else ''}"
    run = Column("run", overflow="fold")
    table = Table(run, "state", "iterations", "channels", "α", "K", title=f"{count} ({where})", box=None)
    for spec in specs:
        trained = spec.method != recipes.FLOOR
        numbers = (str(spec.iterations), str(spec.channels), f"{spec.alpha:g}", f"{spec.steps}/{spec.eval_steps}")
        table.add_row(spec.name, runner.due(spec, results), *(numbers if trained else ("–",) * 4))
    output().print(table)


def _print_results(specs: Sequence[RunSpec], results: Path) -> None:
    from benchmark.report import terminal

    runs = [store.load_run(results / spec.name) for spec in specs if (results / spec.name / "spec.json").exists()]
    terminal.print_table(runs, output())
