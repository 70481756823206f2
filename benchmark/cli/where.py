"""Where results and data lie and how runs execute: flags and their meaning, for every verb that runs something."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.flags import RESULTS, add_data_root, add_results, place, without
from benchmark.errors import UserError, nearest
from benchmark.runs import cluster
from benchmark.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from benchmark.runs import run as runner

MOST_WORKERS = 256


def add_where(parser: argparse.ArgumentParser, *, results: Path = RESULTS) -> None:
    """Where results and data lie, and how runs execute."""
    where = parser.add_argument_group("where")
    add_results(where, results)
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
    where.add_argument(
        "--tensorboard", action="store_true", help="write curves for `tensorboard --logdir` (extra: tensorboard)"
    )
    where.add_argument(
        "--slurm",
        type=lambda text: cluster.read(place(text)),
        metavar="FILE.toml",
        help="submit it as an array job that the file describes; see docs/cluster.md",
    )
    where.add_argument("--dry-run", action="store_true", help="print the plan, and the job's script, and stop")


def machinery(arguments: argparse.Namespace, meta_batch: int) -> tuple[runner.Context, int, torch.device]:
    """How the flags of :func:`add_where` want runs of this meta-batch executed, by how many processes, and where."""
    import torch

    from benchmark.engine import parallel
    from benchmark.metagrad import STRATEGIES
    from benchmark.runs import environment, tensorboard
    from benchmark.runs import run as runner

    if arguments.tensorboard:
        tensorboard.require()
    device = environment.choose_device(arguments.device)
    if arguments.strategy not in STRATEGIES:
        raise UserError(
            f"unknown strategy {arguments.strategy!r}{nearest(arguments.strategy, STRATEGIES)}; "
            f"expected one of {', '.join(STRATEGIES)}"
        )
    workers = arguments.workers if arguments.workers is not None else parallel.default_workers(device, meta_batch)
    if not 1 <= workers <= MOST_WORKERS:
        least = f"at least 1, got {workers}" if workers < 1 else f"at most {MOST_WORKERS}, got {workers}"
        raise UserError(f"--workers must be {least}")
    elsewhere = arguments.slurm is not None or parallel.under_torchrun()
    if device.type == "cuda" and not elsewhere and workers > (count := torch.cuda.device_count()):
        raise UserError(
            f"--workers {workers} want a GPU each; there {'are' if count > 1 else 'is'} {count}, take fewer"
        )
    if device.index is not None and max(workers, getattr(arguments, "jobs", 1)) > 1:
        raise UserError(f"--device {device} is the place of one process; for several take --device {device.type}")
    context = runner.Context(
        results=arguments.results,
        data_root=arguments.data_root,
        device=arguments.device,
        strategy=arguments.strategy,
        recompute=arguments.recompute,
        command=portable(shlex.split(arguments.command_line)),
        tensorboard=arguments.tensorboard,
    )
    return context, workers, device


def portable(words: Sequence[str]) -> tuple[str, ...]:
    """A command without the flags that say where files lie: results are moved, and read on other machines."""
    return without(words, valued=("--results", "--data-root", "--reports", "--slurm", "--jobs"), flags=("--shared",))


def submit(
    arguments: argparse.Namespace, placed: Sequence[tuple[Path | None, RunSpec]], more: Sequence[str] = ()
) -> int:
    """Submit this command, with the flags `more`, as the job that ``--slurm`` describes.

    `placed`: the runs, and where each will lie, if that is known.
    """
    from benchmark.cli import slurm

    processes = arguments.slurm.processes
    least = min(spec.meta_batch for _, spec in placed)
    if processes > 1 and "--shared" not in more:
        raise UserError("--slurm: a tune or a study takes one node a job; set nodes = 1")
    if processes > least:
        raise UserError(f"--slurm: {processes} processes on its nodes share a meta-batch of {least} tasks; take fewer")
    job = slurm.Submission(
        words=(*shlex.split(arguments.command_line)[3:], *more),
        results=arguments.results,
        runs=tuple(path.relative_to(arguments.results).as_posix() for path, _ in placed if path is not None),
        tasks=min(arguments.slurm.jobs, len(placed)),
        later=sum(path is None for path, _ in placed),
    )
    return slurm.submit(job, arguments.slurm, dry_run=arguments.dry_run)
