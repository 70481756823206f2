"""What is done in a run: meta-train from the last checkpoint on, measure the rest of the test tasks, write.

Every process of a group does this at once, in step; rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark import data
from benchmark.engine.execution import Execution
from benchmark.engine.shutdown import Interrupted, Stop
from benchmark.errors import UserError
from benchmark.evaluate import EvaluationProtocol, measure, measure_baseline
from benchmark.recipes import BASELINE
from benchmark.runs import checkpoints, store, tensorboard
from benchmark.runs.agreement import agreed
from benchmark.runs.assembly import build
from benchmark.runs.directory import RunDirectory
from benchmark.runs.progress import Reporter
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from benchmark.train import Hooks, train
from benchmark.training_state import Progress
from optimizers.base import InnerOptimizer

PARTIAL_EVERY_S = 5.0
"""How much of a measurement a kill may cost."""


@dataclass(frozen=True)
class ActiveRun:
    """A claimed run with all that it needs, as every rank has it."""

    spec: RunSpec
    dataset: data.Dataset
    directory: RunDirectory
    execution: Execution
    reporter: Reporter
    stop: Stop
    tensorboard: bool = False

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes the directory."""
        return self.execution.group.rank == 0

    def should_stop(self) -> bool:
        """Whether any process of the group was asked to stop; every process has to ask at once."""
        return self.stop.agreed(self.execution.group)


def carry_out(run: ActiveRun) -> None:
    """From a claimed run to a finished one: meta-train, unless it is the baseline, then measure the test tasks."""
    if run.spec.method == BASELINE:
        agreed(run.execution.group, lambda: _measure_baseline(run))
        return
    optimizer = build(run.spec, run.dataset.image_shape, run.execution.device)
    progress = _train(run, optimizer)
    table, evaluate_s = _measure(run, optimizer) if run.spec.tasks else (None, 0.0)
    if run.writes:
        _finish(run.directory, table, progress, meta_parameters=_size(optimizer), evaluate_s=evaluate_s)
        run.directory.partial.unlink(missing_ok=True)


def _measure_baseline(run: ActiveRun) -> None:
    run.directory.set_status("running", iteration=0)
    started = time.monotonic()
    stream = TaskStream.of(run.spec, run.dataset, "test")
    with run.reporter.measuring(run.spec) as on_rows:
        table = measure_baseline(stream, run.spec.tasks, on_rows=on_rows, should_stop=lambda: bool(run.stop))
    _finish(run.directory, table, Progress(), meta_parameters=0, evaluate_s=time.monotonic() - started)


def _size(optimizer: InnerOptimizer) -> int:
    """The number of meta-parameters."""
    return sum(parameter.numel() for parameter in optimizer.parameters())


def _train(run: ActiveRun, optimizer: InnerOptimizer) -> Progress:
    """Meta-train from the run's checkpoint on; the best meta-parameters are then in `optimizer`."""
    directory, size = run.directory, _size(optimizer)
    owner = checkpoints.ownership(run.spec, run.dataset.hash)
    checkpoint, remark = agreed(run.execution.group, lambda: _find_checkpoint(directory, owner))
    if remark:
        run.reporter.note(remark)

    begun = checkpoint["iteration"] if checkpoint else 0
    watch: Callable[[Progress], None] | None = None

    def save(payload: dict[str, Any], progress: Progress) -> None:
        if watch is not None:
            watch(progress)
        if run.writes:
            directory.require_ours()
            checkpoints.write_checkpoint(directory.checkpoint, payload | {"owner": owner})
            directory.write_table("training", progress.training_table())
            directory.write_table("validation", progress.validation_table())
            _train_status(directory, progress, size)

    if run.writes:
        directory.set_status("running", iteration=begun, meta_parameters=size)
    with contextlib.ExitStack() as stack:
        if run.tensorboard and run.writes:
            folder = directory.path / "tensorboard"
            watch = stack.enter_context(tensorboard.watched(folder, optimizer, run.spec, checkpoint))
        on_step = stack.enter_context(run.reporter.training(run.spec))
        hooks = Hooks(save=save, should_stop=run.should_stop, on_step=on_step)
        return train(optimizer, run.dataset, run.spec, run.execution, checkpoint=checkpoint, hooks=hooks)


def _measure(run: ActiveRun, optimizer: InnerOptimizer) -> tuple[pd.DataFrame, float]:
    """Measure the test tasks, but for those that an interrupted measurement of the same kept; and seconds, of all."""
    spec, directory, group = run.spec, run.directory, run.execution.group
    started = time.monotonic()
    keys = checkpoints.partial_keys(spec, f"{run.dataset.hash} {checkpoints.fingerprint(optimizer.state_dict())}")
    done = group.broadcast(checkpoints.read_partial(directory.partial, *keys) if run.writes else None)
    wall = directory.status.get("wall_s", {})
    before = wall.get("evaluate", 0.0) if done is not None else 0.0
    with run.reporter.measuring(spec) as on_rows:
        written = time.monotonic()

        def on_chunk(table: pd.DataFrame) -> None:
            nonlocal written
            on_rows(len(table))
            stopping = run.should_stop()
            if run.writes and (stopping or time.monotonic() - written > PARTIAL_EVERY_S):
                checkpoints.write_partial(directory.partial, keys[0], table)
                written = time.monotonic()
                directory.set_status("running", wall_s=wall | {"evaluate": round(before + written - started, 1)})
            if stopping:
                raise Interrupted("interrupted while measuring")

        stream = TaskStream.of(spec, run.dataset, "test")
        protocol = EvaluationProtocol(tasks=spec.tasks, steps=spec.eval_steps, trace_steps=spec.trace_steps)
        table = measure(optimizer, stream, protocol, run.execution, done=done, on_chunk=on_chunk)
    return table, before + time.monotonic() - started


def _find_checkpoint(directory: RunDirectory, owner: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    """The run's own checkpoint, or that of a run that differs only in how it is measured; and a remark."""
    name = directory.path.name
    checkpoint, remark = checkpoints.read_latest_checkpoint(directory.checkpoint)
    if checkpoint is not None:
        checkpoints.require_ownership(checkpoint, directory.spec, owner, directory.checkpoint)
        return checkpoint, remark
    for path in sorted(directory.path.parent.glob(f"{name.rpartition('-')[0]}-*")):
        checkpoint = None
        with contextlib.suppress(UserError):  # what is wrong with another run is not this one's business
            checkpoint = _trained_alike(path, directory.spec, owner)
        if checkpoint is not None:
            checkpoints.write_checkpoint(directory.checkpoint, checkpoint)  # the other run may be deleted
            return checkpoint, f"{name}: trained already as {path.name}, only measured again"
    lost = directory.status.get("iteration", 0)
    return None, f"{name}: has no checkpoint of its {lost} meta-steps, begins afresh" if lost else ""


def _trained_alike(path: Path, spec: RunSpec, owner: dict[str, str]) -> dict[str, Any] | None:
    """The checkpoint of the run at `path` if it is finished and was trained as `spec` is."""
    run = store.load_run(path)
    if run.state != "finished" or RunSpec.from_dict(run.spec).training_digest() != owner["spec"]:
        return None
    checkpoint, _ = checkpoints.read_latest_checkpoint(path / "checkpoint.pt")
    if checkpoint is not None:
        checkpoints.require_ownership(checkpoint, spec, owner, path)
    return checkpoint


def _train_status(
    directory: RunDirectory, progress: Progress, size: int, state: str = "running", **measured_s: float
) -> None:
    wall = {"train": progress.train_s, "validate": progress.validate_s, **measured_s}
    best = progress.best_score if progress.best is not None else None
    directory.set_status(
        state,
        iteration=progress.iteration,
        meta_parameters=size,
        wall_s={name: round(seconds, 1) for name, seconds in wall.items()},
        best_iteration=progress.best_iteration,
        best_score=best,
        skipped_steps=progress.skipped,
    )


def _finish(
    directory: RunDirectory,
    table: pd.DataFrame | None,
    progress: Progress,
    *,
    meta_parameters: int,
    evaluate_s: float = 0.0,
) -> None:
    if progress.losses:  # again: they may be what was damaged
        directory.write_table("training", progress.training_table())
        directory.write_table("validation", progress.validation_table())
    if table is not None:
        directory.write_table("evaluation", table)
    _train_status(directory, progress, meta_parameters, evaluate=evaluate_s)
    directory.set_status("finished", message="")
