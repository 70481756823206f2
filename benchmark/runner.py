"""Which runs are due, and running them: meta-train, measure, write, whatever happens in between.

Every process of a group executes the same plan in the same order; rank 0 alone writes and reports. A run ends in one of
the states of :data:`benchmark.store.STATES`, and each keeps what was computed so far.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

import benchmark
import optimizers
from benchmark import data, networks, store
from benchmark.allocator import keep_large_buffers
from benchmark.data import episodes, pixels
from benchmark.errors import UserError
from benchmark.evaluate import CHUNK, measure
from benchmark.parallel import Group
from benchmark.progress import Reporter
from benchmark.recipes import FLOOR
from benchmark.spec import RunSpec
from benchmark.store import RunDirectory
from benchmark.train import Diverged, Interrupted, Progress, restore, train
from optimizers.base import InnerOptimizer

RESUMABLE = ("running", "interrupted", "failed", "oom")
"""Failures are not cached: such a run is taken up again from its checkpoint. Finished and diverged ones are results."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and how runs execute: nothing here changes a result beyond float rounding."""

    results: Path
    data_root: Path | None = None
    device: str = "auto"
    strategy: str = "auto"
    command: tuple[str, ...] = ()


class Stop:
    """SIGINT and SIGTERM ask for a stop at the next meta-step; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def installed(self) -> Iterator[Stop]:
        def handle(number: int, frame: object) -> None:
            if self.signal is not None:
                os._exit(128 + number)
            self.signal = number

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} is not usable here ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return device


def build(spec: RunSpec, image_shape: Sequence[int], device: torch.device) -> InnerOptimizer:
    """The untrained optimizer of a run. Its start is a function of seed, network and method alone."""
    torch.manual_seed(spec.seed)
    channels, height, width = (*image_shape, 1, 1)[:3]
    network = networks.create(spec.network, spec.ways, (channels, height, width), spec.channels)
    optimizer = optimizers.create(spec.method, network, alpha=spec.alpha, **spec.options)
    return optimizer.to(device, torch.float64 if spec.precision == "float64" else torch.float32)


def check(spec: RunSpec, dataset: data.Dataset) -> None:
    """Raise :class:`UserError` now for what would fail in the middle of a run."""
    for split, query in (("train", spec.query_train), ("val", spec.query_test), ("test", spec.query_test)):
        episodes.check(dataset, split, spec.ways, spec.shots, query)
    if spec.method == FLOOR:
        return
    try:
        optimizer = build(spec, dataset.image_shape, torch.device("cpu"))
    except ValueError as error:
        raise UserError(str(error)) from error
    regression = dataset.kind == "regression"
    if regression != hasattr(optimizer.network, "loss"):
        kind = "regression" if regression else "classification"
        raise UserError(f"{spec.dataset} is {kind}, network {spec.network} is not; choose another --network")
    if not regression and spec.ways < 2:
        raise UserError(f"ways must be at least 2 to classify, got {spec.ways}")


def due(spec: RunSpec, results: Path) -> str:
    """``new``, ``resume`` or ``done``: what :func:`execute` would do with `spec`."""
    state = RunDirectory(results, spec).state()
    return "new" if state is None else "resume" if state in RESUMABLE else "done"


def execute(spec: RunSpec, context: Context, *, group: Group, reporter: Reporter, stop: Stop) -> str:
    """Bring one run to its end and return its state. Raises what stopped it, after recording it."""
    directory = RunDirectory(context.results, spec)
    state = group.broadcast(due(spec, context.results) if group.rank == 0 else None)
    reporter.begin(spec, state)
    if state == "done":
        return directory.state() or "finished"
    device = choose_device(context.device)
    claim = directory.claim(environment(device, group), list(context.command))
    with claim if group.rank == 0 else contextlib.nullcontext(), _recorded(directory, group), _precision(spec):
        dataset = data.load(spec.dataset, context.data_root)
        _run(spec, dataset, directory, context, group=group, device=device, reporter=reporter, stop=stop)
    return "finished"


def _run(
    spec: RunSpec,
    dataset: data.Dataset,
    directory: RunDirectory,
    context: Context,
    *,
    group: Group,
    device: torch.device,
    reporter: Reporter,
    stop: Stop,
) -> None:
    writes = group.rank == 0
    if spec.method == FLOOR:
        if writes:
            directory.set_status("running", iteration=0)
            table = measure_floor(spec, dataset)
            _finish(directory, table, Progress(), meta_parameters=0, evaluate_s=0.0)
        return
    optimizer = build(spec, dataset.image_shape, device)
    size = sum(parameter.numel() for parameter in optimizer.parameters())
    checkpoint, remark = group.broadcast(_find_checkpoint(directory, context.results) if writes else None)
    if remark:
        reporter.note(remark)
    if checkpoint and checkpoint["spec"] != spec.training_digest():
        raise UserError(f"{directory.checkpoint}: belongs to another run; delete the directory to start it afresh")

    def save(payload: dict[str, Any], progress: Progress) -> None:
        if writes:
            store.write_checkpoint(directory.checkpoint, payload | {"spec": spec.training_digest()})
            directory.write_table("training", progress.training_table())
            directory.write_table("validation", progress.validation_table())
            _train_status(directory, progress, size)

    if writes:
        directory.set_status("running", iteration=checkpoint["iteration"] if checkpoint else 0, meta_parameters=size)
    with reporter.training(spec) as on_step:
        progress = train(
            optimizer,
            dataset,
            spec,
            group=group,
            device=device,
            strategy=context.strategy,
            checkpoint=checkpoint,
            save=save,
            should_stop=lambda: bool(stop),
            on_step=on_step,
        )
    started = time.monotonic()
    partial = directory.path / "evaluation.partial.csv"
    done = group.broadcast(_read_partial(partial, progress) if writes else None)
    with reporter.measuring(spec) as on_rows:

        def on_chunk(table: pd.DataFrame) -> None:
            on_rows(len(table))
            if writes:
                directory.write_table("evaluation.partial", table)
            if group.any_(bool(stop)):
                raise Interrupted("interrupted while measuring")

        table = measure(
            optimizer,
            dataset,
            spec,
            "test",
            spec.tasks,
            steps=spec.eval_steps,
            trace_steps=spec.trace_steps,
            group=group,
            device=device,
            strategy=context.strategy,
            done=done,
            on_chunk=on_chunk,
        )
    if writes:
        _finish(directory, table, progress, meta_parameters=size, evaluate_s=time.monotonic() - started)
        partial.unlink(missing_ok=True)


def measure_floor(spec: RunSpec, dataset: data.Dataset) -> pd.DataFrame:
    """Nearest centroid on raw pixels on the very tasks that the methods are measured on."""
    tables = []
    for start in range(0, spec.tasks, CHUNK):
        indices = range(start, min(start + CHUNK, spec.tasks))
        batch = data.sample(dataset, "test", spec.ways, spec.shots, spec.query_test, spec.seed, indices)
        accuracy, nll = pixels.evaluate(batch)
        tables.append(pd.DataFrame({"task": list(indices), "accuracy": accuracy.numpy(), "nll": nll.numpy()}))
    return pd.concat(tables, ignore_index=True)


def _find_checkpoint(directory: RunDirectory, results: Path) -> tuple[dict[str, Any] | None, str]:
    """The run's own checkpoint, or that of a run that differs only in how it is measured."""
    checkpoint, remark = store.read_latest_checkpoint(directory.checkpoint)
    if checkpoint is not None:
        return checkpoint, remark
    digest = directory.spec.training_digest()
    for run in store.load_runs(results):
        if run.state != "finished" or RunSpec.from_dict(run.spec).training_digest() != digest:
            continue
        checkpoint, _ = store.read_latest_checkpoint(run.path / "checkpoint.pt")
        if checkpoint is not None:
            return checkpoint, f"{directory.path.name}: trained already as {run.name}, only measured again"
    return None, ""


def _read_partial(path: Path, progress: Progress) -> pd.DataFrame | None:
    """Test tasks measured before an interruption."""
    try:
        return pd.read_csv(path, float_precision="round_trip", dtype={"accuracy": "float32"})
    except (OSError, ValueError):
        return None


def _train_status(directory: RunDirectory, progress: Progress, size: int, state: str = "running") -> None:
    wall = {"train": round(progress.wall_s, 1)}
    best = progress.best_accuracy if progress.best is not None else None
    directory.set_status(
        state,
        iteration=progress.iteration,
        meta_parameters=size,
        wall_s=wall,
        best_iteration=progress.best_iteration,
        best_accuracy=best,
        skipped_steps=progress.skipped,
    )


def _finish(
    directory: RunDirectory, table: pd.DataFrame, progress: Progress, *, meta_parameters: int, evaluate_s: float
) -> None:
    directory.write_table("evaluation", table)
    _train_status(directory, progress, meta_parameters)
    wall = {"train": round(progress.wall_s, 1), "evaluate": round(evaluate_s, 1)}
    directory.set_status("finished", wall_s=wall, message="")


@contextlib.contextmanager
def _recorded(directory: RunDirectory, group: Group) -> Iterator[None]:
    """Write down how the block ended, then let what stopped it go on."""

    def record(state: str, error: BaseException) -> None:
        if group.rank == 0:
            with contextlib.suppress(OSError):  # a full disk must not hide the error that it caused
                directory.set_status(state, message=str(error).splitlines()[0] if str(error) else type(error).__name__)

    try:
        yield
    except Diverged as error:
        record("diverged", error)
        raise
    except (Interrupted, KeyboardInterrupt) as error:
        record("interrupted", error)
        raise
    except Exception as error:
        record("oom" if is_out_of_memory(error) else "failed", error)
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's and for the CPU allocator's out of memory, and for nothing else."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


@contextlib.contextmanager
def _precision(spec: RunSpec) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def environment(device: torch.device, group: Group) -> dict[str, Any]:
    """What a reader needs to repeat or to doubt a number."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "version": benchmark.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": f"{device.type} ({name})",
        "workers": group.size,
        "threads": torch.get_num_threads(),
        "started": store.now(),
    }


def _commit() -> str:
    """The commit of this source tree, with ``+`` where files differ from it; empty outside a checkout."""
    root = Path(benchmark.__file__).parent.parent
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--", "benchmark", "optimizers"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def load_trained(run: store.Run, data_root: Path | None = None) -> InnerOptimizer:
    """The optimizer of a run with its best meta-parameters, on the CPU."""
    spec = RunSpec.from_dict(run.spec)
    optimizer = build(spec, data.load(spec.dataset, data_root).image_shape, torch.device("cpu"))
    checkpoint, _ = store.read_latest_checkpoint(run.path / "checkpoint.pt")
    if checkpoint is None:
        raise UserError(f"{run.path}: has no checkpoint.pt; it stays on the machine that trains, so run it here first")
    progress = restore(checkpoint, optimizer)
    if progress.best is not None:
        optimizer.load_state_dict(progress.best)
    return optimizer


def run_all(specs: Sequence[RunSpec], context: Context, *, group: Group, reporter: Reporter) -> dict[str, str]:
    """Execute `specs` in order; a run that fails or diverges does not keep the others from running.

    Returns the state of each run by name. An interruption ends everything: :class:`SystemExit` with 128 + signal.
    """
    states: dict[str, str] = {}
    stop = Stop()
    with stop.installed():
        for spec in specs:
            try:
                states[spec.name] = execute(spec, context, group=group, reporter=reporter, stop=stop)
            except Diverged as error:
                states[spec.name] = "diverged"
                reporter.note(f"{spec.name} diverged: {error}")
            except Interrupted:
                reporter.note(f"{spec.name} interrupted; the same command goes on from its checkpoint")
                sys.exit(128 + (stop.signal or signal.SIGINT))
            except Exception as error:
                if group.size > 1:
                    raise  # the other ranks are inside a collective: end together
                states[spec.name] = "oom" if is_out_of_memory(error) else "failed"
                hint = "; try a smaller --meta-batch or --channels" if is_out_of_memory(error) else ""
                reporter.note(f"{spec.name} {states[spec.name]}: {error}{hint}")
                if not isinstance(error, UserError) and not is_out_of_memory(error):
                    reporter.traceback()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
    return states


def run_plan(group: Group, specs: Sequence[RunSpec], context: Context) -> dict[str, str]:
    """:func:`run_all` as one of the processes of `group`: what :func:`benchmark.parallel.launch` starts."""
    keep_large_buffers()
    console = Console(stderr=True) if group.rank == 0 else None
    return run_all(specs, context, group=group, reporter=Reporter(console, total=len(specs)))
