"""The command line: verbs, flags, and the one line that a wrong one gets.

Flags of ``run`` are made from the fields of :class:`benchmark.spec.RunSpec`: a knob that exists has a flag. Modules
that need torch are imported by the verbs that use them, so that help and reports come at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

import benchmark
from benchmark import recipes, store
from benchmark.errors import UserError, nearest
from benchmark.spec import RECIPES, RunSpec

PROG = "python -m benchmark"
LISTED = ("method", "options", "shots", "seed")
"""Knobs that ``run`` takes as lists, under flags of their own."""


class Parser(argparse.ArgumentParser):
    """argparse with errors that are one line and name the nearest right word."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"unrecognized arguments: (\S+)|invalid choice: '([^']*)'", message)
        if wrong:
            word = (wrong[1] or wrong[2]).partition("=")[0]
            known = self.words()
            raise UserError(
                f"unknown {'flag' if wrong[1] else 'verb'} {word!r}{nearest(word, known)}; see {self.prog} --help"
            )
        raise UserError(f"{message}; see {self.prog} --help")

    def words(self) -> list[str]:
        """Every flag and verb of this parser and those below it."""
        found: list[str] = []
        for action in self._actions:
            found += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                found += list(action.choices)
                for parser in action.choices.values():
                    found += [flag for each in parser._actions for flag in each.option_strings]
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for a run that failed, 2 for a wrong command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(arguments)
        options.command_line = shlex.join(["python", "-m", "benchmark", *arguments])
        return int(options.verb(options) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> Parser:
    parser = Parser(prog=PROG, description=benchmark.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=benchmark.__version__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, text: str, act: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(verb=act)
        return made

    _add_run(verb("run", "meta-train methods, then measure them on new tasks", _run))
    _add_report(verb("report", "tables and figures from results", _report))
    listing = verb("list", "methods, data sets, networks and presets; or one method in full", _list)
    listing.add_argument("name", nargs="?", metavar="METHOD", help="show this method's card")
    _add_data_root(listing)
    status = verb("status", "where each run stands", _status)
    _add_results(status)
    _add_data(verb("data", "import, list and look at data sets", _data))
    return parser


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="imported data sets; default: $BENCHMARK_DATA or the user's cache folder",
    )


# run


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", required=True, metavar="A,B|all", help="which methods; see the verb list")
    parser.add_argument("--shots", type=_integers("--shots"), default=(1,), metavar="N[,N]", help="default: 1")
    parser.add_argument("--seeds", type=_integers("--seeds"), default=(0,), metavar="N[,N]", help="default: 0")
    parser.add_argument(
        "--recipe",
        default="controlled",
        choices=None,
        metavar="|".join(RECIPES),
        help="one setting for all, or each method's own; default: controlled",
    )
    parser.add_argument(
        "--preset",
        default="quick",
        metavar="|".join(recipes.PRESETS),
        help="size of the controlled recipe; default: quick",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="[METHOD.]KEY=VALUE",
        help="an option of one method, or of every method; repeatable",
    )
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
    _add_results(where)  # type: ignore[arg-type]
    _add_data_root(where)  # type: ignore[arg-type]
    where.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …; default: auto")
    where.add_argument("--strategy", default="auto", metavar="loop|vmap|auto", help="how tasks are batched")
    where.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes that share the tasks; default: one per core (at most the meta-batch), or one per GPU",
    )
    where.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def _integers(flag: str) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(dict.fromkeys(int(part) for part in text.split(",")))
        except ValueError:
            raise UserError(f"{flag} must be whole numbers separated by commas, got {text!r}") from None

    return parse


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
    options = _method_options(arguments.option, methods)
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
                        preset=arguments.preset,
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


def _method_options(texts: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["md.sigma=exp", "adapt=head"]`` → options by method."""
    found: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for text in texts:
        key, equals, written = text.partition("=")
        method, dot, name = key.rpartition(".")
        if not equals or not name:
            raise UserError(f"--option takes [METHOD.]KEY=VALUE, got {text!r}")
        if dot and method not in methods:
            raise UserError(f"--option {text}: {method!r} is not among --methods{nearest(method, methods)}")
        value: Any = written
        with contextlib.suppress(ValueError):
            value = json.loads(written.lower() if written.lower() in ("true", "false") else written)
        for each in [method] if dot else methods:
            found[each][name] = value
    return found


def _run(arguments: argparse.Namespace) -> int:
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
        command=tuple(shlex.split(arguments.command_line)),
    )
    states = plans.launch_plan(specs, context, workers=workers, device=device)
    _print_results(specs, arguments.results)
    return 0 if all(state in ("finished", "diverged") for state in states.values()) else 1


def _print_plan(specs: Sequence[RunSpec], results: Path, where: str) -> None:
    from benchmark import runner

    table = Table("run", "state", "iterations", "channels", "α", "K", title=f"{len(specs)} runs ({where})", box=None)
    for spec in specs:
        trained = spec.method != recipes.FLOOR
        numbers = (str(spec.iterations), str(spec.channels), f"{spec.alpha:g}", f"{spec.steps}/{spec.eval_steps}")
        table.add_row(spec.name, runner.due(spec, results), *(numbers if trained else ("–",) * 4))
    _console().print(table)


def _print_results(specs: Sequence[RunSpec], results: Path) -> None:
    from benchmark.report import terminal

    runs = [store.load_run(results / spec.name) for spec in specs if (results / spec.name / "spec.json").exists()]
    terminal.print_table(runs, _console())


def _console() -> Console:
    """Standard output; in a pipe as wide as its lines."""
    return Console() if sys.stdout.isatty() else Console(width=200)


# The other verbs


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_results(parser)
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="default: reports")


def _report(arguments: argparse.Namespace) -> None:
    from benchmark import report
    from benchmark.report import terminal

    terminal.print_table(store.load_runs(arguments.results), _console())
    for path in report.write(arguments.results, arguments.reports):
        print(path)


def _list(arguments: argparse.Namespace) -> None:
    import optimizers
    from benchmark import data, networks

    console = _console()
    if arguments.name:
        from benchmark import cards

        try:
            cards.show(arguments.name, console)
        except ValueError as error:
            raise UserError(str(error)) from None
        return
    methods = Table("method", "what it is", "geometry", title="methods", title_justify="left", box=None)
    for name in optimizers.available():
        card = optimizers.card(name)
        also = [alias for alias, own in optimizers.aliases.items() if own == name]
        methods.add_row(
            f"{name} ({', '.join(also)})" if also else name,
            card.title + (" (reconstructed)" if card.reconstructed else ""),
            card.geometry,
        )
    console.print(methods)
    for name, reason in optimizers.broken().items():
        console.print(f"plug-in {name} cannot be used: {reason}", markup=False, highlight=False)
    sets = Table("data set", "state", title="\ndata sets", title_justify="left", box=None)
    for entry in data.available(arguments.data_root):
        sets.add_row(str(entry["name"]), str(entry.get("state", "")))
    console.print(sets)
    console.print(f"\nnetworks   {', '.join(networks.available())}", highlight=False)
    console.print(f"recipes    {', '.join(RECIPES)}", highlight=False)
    for preset in recipes.PRESETS:
        own = ", ".join(
            f"{name}: {entry.values['iterations']} iterations" for name, entry in recipes.CONTROLLED[preset].items()
        ).replace("*", "any other")
        console.print(f"preset {preset:<6} {own}", highlight=False)


def _status(arguments: argparse.Namespace) -> None:
    runs = store.load_runs(arguments.results)
    table = Table("run", "state", "iteration", "validation", "updated", box=None)
    for run in runs:
        state = run.state
        if state == "running" and not store.is_alive(run.path):
            state = "killed"
        best = run.status.get("best_accuracy")
        iteration, total = run.status.get("iteration", 0), run.spec["iterations"]
        table.add_row(
            run.name,
            state,
            f"{iteration}/{total}" if total else "–",
            f"{100 * best:.1f} %" if best is not None else "–",
            run.status.get("updated", ""),
        )
        if run.status.get("message"):
            table.add_row(f"  {run.status['message']}")
    _console().print(table)


def _add_data(parser: argparse.ArgumentParser) -> None:
    from benchmark.data import cli as data_cli

    data_cli.add_arguments(parser)


def _data(arguments: argparse.Namespace) -> int | None:
    from benchmark.data import cli as data_cli

    return data_cli.main(arguments)
