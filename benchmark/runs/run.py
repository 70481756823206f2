"""One run: whether it is due, and bringing it to its end: meta-train, measure, write, whatever happens in between.

Every process of a group runs this; rank 0 alone writes and reports. A run ends in one of the states of
:data:`benchmark.runs.store.STATES`, and each keeps what was computed so far.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from benchmark import data
from benchmark.engine.parallel import Group
from benchmark.engine.shutdown import Interrupted, Stop, settle
from benchmark.errors import UserError
from benchmark.evaluate import measure, measure_floor
from benchmark.recipes import FLOOR
from benchmark.runs import checkpoints, store
from benchmark.runs.assembly import build, is_out_of_memory, shown_card
from benchmark.runs.environment import choose_device, environment
from benchmark.runs.progress import Reporter
from benchmark.runs.store import RunDirectory
from benchmark.spec import RunSpec
from benchmark.train import Diverged, Progress, train

T = TypeVar("T")
RESUMABLE = ("running", "interrupted", "failed", "oom")
"""Failures are not cached: such a run is taken up again from its checkpoint. Finished and diverged ones are results."""

SHARED_PATIENCE_S = 0.5
"""How long a process waits for a run that another holds before it takes up the next one of a shared plan."""

PARTIAL_EVERY_S = 5.0
"""How much of a measurement a kill may cost."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and how runs execute: nothing here changes a result beyond float rounding."""

    results: Path
    data_root: Path | None = None
    device: str = "auto"
    strategy: str = "auto"
    recompute: bool = False
    command: tuple[str, ...] = ()
    tuning: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """By method: what a run of the recipe tuned records of the origin of its values."""
    shared: bool = False
    """A run that another process holds is left to it, in the state ``held``, and no failure."""


def due(spec: RunSpec, results: Path) -> str:
    """``new``, ``resume`` or ``done``: what :func:`execute` would do with `spec`."""
    return _standing(RunDirectory(results, spec))[0]


def _standing(directory: RunDirectory) -> tuple[str, str]:
    """``new``, ``resume`` or ``done``, and what is wrong with a finished run that must be measured again."""
    run = directory.run()
    if run is None:
        return "new", ""
    if run.state in RESUMABLE:
        return "resume", ""
    try:
        run.check_tables()
    except UserError as error:
        return "resume", f"{error}; measuring again"
    return "done", ""


class Agreed(UserError):
    """An error of rank 0 that every rank raises together: the group is still in step."""


def _agreed(group: Group, work: Callable[[], T]) -> T:
    """What rank 0's `work` returns, on every rank; its :class:`UserError` becomes :class:`Agreed` on every rank."""
    outcome: Any = None
    if group.rank == 0:
        try:
            outcome = work()
        except UserError as error:
            outcome = error
    outcome = group.broadcast(outcome)
    if isinstance(outcome, UserError):
        raise Agreed(str(outcome))
    return outcome


def execute(spec: RunSpec, context: Context, *, group: Group, reporter: Reporter, stop: Stop) -> str:
    """Bring one run to its end and return its state. Raises what stopped it, after recording it."""
    directory = RunDirectory(context.results, spec)
    standing, remark = _agreed(group, lambda: _standing(directory))
    reporter.begin(spec, standing)
    if remark:
        reporter.note(remark)
    if standing == "done":
        return _agreed(group, directory.state)
    device = choose_device(context.device)
    with contextlib.ExitStack() as stack:

        def claim() -> str:
            """The run is ours. Another process may have brought it to its end while we waited."""
            how = {"strategy": context.strategy, "recompute": context.recompute}
            where = environment(device, group, _hash(spec, context)) | how
            patience_s = 600.0 if spec.method == FLOOR else 2.0  # the floor is soon done, and every plan has it
            origin = context.tuning.get(spec.method) if spec.recipe == "tuned" else None
            claimed = directory.claim(
                where,
                list(context.command),
                tuning=origin,
                card=shown_card(spec),
                patience_s=SHARED_PATIENCE_S if context.shared else patience_s,
            )
            try:
                stack.enter_context(claimed)
            except store.Held:
                if context.shared:
                    return "held"
                raise
            return _standing(directory)[0]

        outcome = _agreed(group, claim)
        if outcome == "held":
            reporter.note(f"{spec.name}: held by another process, left to it")
            return "held"
        if outcome == "done":
            return _agreed(group, directory.state)
        with _recorded(directory, group, stop), _precision(spec):
            _agreed(group, lambda: data.load(spec.dataset, context.data_root).hash)
            dataset = data.load(spec.dataset, context.data_root)
            _agreed(group, lambda: _require_data(directory, dataset))
            _run(spec, dataset, directory, context, group=group, device=device, reporter=reporter, stop=stop)
    return "finished"


def _hash(spec: RunSpec, context: Context) -> str:
    """The data set's hash, or nothing where it is missing: the run is to say so in its own status."""
    try:
        return data.load(spec.dataset, context.data_root).hash
    except UserError:
        return ""


def _require_data(directory: RunDirectory, dataset: data.Dataset) -> None:
    """:class:`UserError` if the run was begun on other images, or another split, than the name stands for now."""
    began = store.load_run(directory.path).environment.get("dataset_hash")
    if began and began != dataset.hash:
        raise UserError(
            f"{directory.path.name}: data set {dataset.name} has changed since the run began (hash {began[:12]}, now "
            f"{dataset.hash[:12]}); import it as it was, or {checkpoints.AFRESH}"
        )


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
            started = time.monotonic()
            with reporter.measuring(spec) as on_rows:
                table = measure_floor(spec, dataset, on_rows=on_rows, should_stop=lambda: bool(stop))
            _finish(directory, table, Progress(), meta_parameters=0, evaluate_s=time.monotonic() - started)
        return
    optimizer = build(spec, dataset.image_shape, device)
    size = sum(parameter.numel() for parameter in optimizer.parameters())
    owner = checkpoints.ownership(spec, dataset.hash)
    checkpoint, remark = _agreed(group, lambda: _find_checkpoint(directory, owner))
    if remark:
        reporter.note(remark)

    def save(payload: dict[str, Any], progress: Progress) -> None:
        if writes:
            checkpoints.write_checkpoint(directory.checkpoint, payload | {"owner": owner})
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
            recompute=context.recompute,
            checkpoint=checkpoint,
            save=save,
            should_stop=lambda: bool(stop),
            on_step=on_step,
        )
    if not spec.tasks:
        if writes:
            _finish(directory, None, progress, meta_parameters=size)
        return
    started = time.monotonic()
    keys = checkpoints.partial_keys(spec, f"{dataset.hash} {checkpoints.fingerprint(optimizer.state_dict())}")
    done = group.broadcast(checkpoints.read_partial(directory.partial, *keys) if writes else None)
    with reporter.measuring(spec) as on_rows:
        written = time.monotonic()

        def on_chunk(table: pd.DataFrame) -> None:
            nonlocal written
            on_rows(len(table))
            stopping = group.any_(bool(stop))
            if writes and (stopping or time.monotonic() - written > PARTIAL_EVERY_S):
                checkpoints.write_partial(directory.partial, keys[0], table)
                written = time.monotonic()
            if stopping:
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
        directory.partial.unlink(missing_ok=True)


def _find_checkpoint(directory: RunDirectory, owner: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    """The run's own checkpoint, or that of a run that differs only in how it is measured; and a remark."""
    name = directory.path.name
    checkpoint, remark = checkpoints.read_latest_checkpoint(directory.checkpoint)
    if checkpoint is not None:
        checkpoints.require_ownership(checkpoint, directory.spec, owner, directory.checkpoint)
        return checkpoint, remark
    for path in sorted(directory.path.parent.glob(f"{name.rpartition('-')[0]}-*")):
        with contextlib.suppress(UserError):  # what is wrong with another run is not this one's business
            run = store.load_run(path)
            if run.state != "finished" or RunSpec.from_dict(run.spec).training_digest() != owner["spec"]:
                continue
            checkpoint, _ = checkpoints.read_latest_checkpoint(path / "checkpoint.pt")
            if checkpoint is not None:
                checkpoints.require_ownership(checkpoint, directory.spec, owner, path)
                return checkpoint, f"{name}: trained already as {run.name}, only measured again"
    lost = directory.status.get("iteration", 0)
    return None, f"{name}: has no checkpoint of its {lost} meta-steps, begins afresh" if lost else ""


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


@contextlib.contextmanager
def _recorded(directory: RunDirectory, group: Group, stop: Stop) -> Iterator[None]:
    """Write down how the block ended, then let what stopped it go on."""

    def record(state: str, error: BaseException) -> None:
        settle()
        if group.rank == 0:
            with contextlib.suppress(UserError):  # a full disk must not hide the error that it caused
                directory.set_status(state, message=_first_line(error))

    try:
        yield
    except Diverged as error:
        record("diverged", error)
        raise
    except (Interrupted, KeyboardInterrupt) as error:
        record("interrupted", error)
        raise
    except Exception as error:
        if stop and group.size > 1:  # another rank dropped its step, and the collective failed
            record("interrupted", Interrupted("interrupted"))
            raise Interrupted("interrupted") from error
        record("oom" if is_out_of_memory(error) else "failed", error)
        raise


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextlib.contextmanager
def _precision(spec: RunSpec) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
