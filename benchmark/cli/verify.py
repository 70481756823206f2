"""The verb ``verify``: prove the methods right, and look at the geometry of what they learned."""

from __future__ import annotations

import argparse

from benchmark.cli.flags import add_data_root, add_option, add_results, method_options, output, place
from benchmark.errors import UserError, nearest
from benchmark.files import require_writable, write_atomic
from benchmark.runs.grid import methods_named

MOST_STEPS = 10_000
HELP = "prove methods right; the geometry they learned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", default="all", metavar="A,B|all", help="default: all")
    add_option(parser)
    parser.add_argument(
        "--network",
        default="cnn4,cnn2,resnet12",
        metavar="NAME[,NAME]",
        help="where derivatives are checked, small; default: cnn4,cnn2,resnet12",
    )
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        type=place,
        default=[],
        metavar="RUN",
        help="directories of trained runs: their learned geometry, and what each estimator of the meta-gradient is off",
    )
    parser.add_argument(
        "--search",
        type=int,
        default=0,
        metavar="STEPS",
        help="look for points where a mirror map is not monotone, so many steps down from each start; default: 0, none",
    )
    parser.add_argument("--output", type=place, metavar="FILE", help="write what is printed here, too")
    add_results(parser)
    add_data_root(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print what was checked and how far off it was; 1 if a check failed."""
    from benchmark.verify.derivatives import NETWORKS
    from benchmark.verify.methods import KEPT, verify

    methods = methods_named(arguments.methods.split(","))
    options = method_options(arguments.option, methods)
    networks = [word.strip() for word in arguments.network.split(",") if word.strip()]
    for word in networks or [arguments.network]:
        if word not in NETWORKS:
            raise UserError(
                f"--network: {word!r} is none of {', '.join(NETWORKS)}{nearest(word, NETWORKS)}, which verify checks on"
            )
    for path in arguments.checkpoints:
        if not (path / "spec.json").exists():
            raise UserError(f"{path} is not the directory of a run; expected one that holds spec.json, below results/")
    if not 0 <= arguments.search <= MOST_STEPS:
        raise UserError(f"--search takes a number of steps from 0 to {MOST_STEPS:,}, got {arguments.search}")
    console = output()
    results = arguments.results if arguments.results.is_dir() else None
    kept = [results / f"{name}.csv" for name in KEPT] if results else []
    for target in filter(None, (arguments.output, *kept)):
        require_writable(target)
    console.record = arguments.output is not None
    records = verify(
        methods,
        arguments.checkpoints,
        console=console,
        data_root=arguments.data_root,
        results=results,
        networks=networks,
        options=options,
        search_steps=arguments.search,
    )
    if arguments.output is not None:
        text = f"$ {arguments.command_line}\n\n{console.export_text()}"
        write_atomic(arguments.output, "".join(f"{line.rstrip()}\n" for line in text.splitlines()).encode())
    return 0 if all(record.passed for record in records) else 1
