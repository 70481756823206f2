"""One run from claim to end: whether it is due, whose it is, on which data, and how it ended, whatever happens.

Every process of a group runs this; rank 0 alone writes and reports. What is done in between is
:mod:`benchmark.runs.stages`. A run ends in one of the states of
:data:`benchmark.runs.store.STATES`, and each keeps what was computed so far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import data
from benchmark.engine.execution import Execution
from benchmark.engine.group import Group
from benchmark.engine.shutdown import Interrupted, Stop, settle
from benchmark.errors import UserError
from benchmark.recipes import BASELINE
from benchmark.runs import checkpoints
from benchmark.runs.agreement import agreed
from benchmark.runs.assembly import is_out_of_memory, shown_card
from benchmark.runs.directory import Held, RunDirectory
from benchmark.runs.environment import choose_device, environment
from benchmark.runs.progress import Reporter
from benchmark.runs.stages import ActiveRun, carry_out
from benchmark.runs.store import load_run
from benchmark.spec import RunSpec
from benchmark.train import Diverged

RESUMABLE = ("running", "interrupted", "failed", "oom")
"""Failures are not cached: such a run is taken up again from its checkpoint. Finished and diverged ones are results."""

SHARED_PATIENCE_S = 0.5
"""How long a process waits for a run that another holds before it takes up the next one of a shared plan."""


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
    tensorboard: bool = False
    """Write what :mod:`benchmark.runs.tensorboard` shows, beside the run's tables."""


def due(spec: RunSpec, results: Path) -> str:
    """``new``, ``resume`` or ``done``: what :func:`execute` would do with `spec`."""
    return _standing(RunDirectory(results, spec))[0]


def require_same_images(specs: Iterable[RunSpec], results: Path, dataset: data.Dataset) -> None:
    """:class:`UserError` if one of these runs is there and was begun on other images than `dataset` has now."""
    for spec in specs:
        with contextlib.suppress(UserError):  # a run that cannot be read is for `execute` to judge
            run = RunDirectory(results, spec).run()
            if run is not None and (began := run.environment.get("dataset_hash") or dataset.hash) != dataset.hash:
                break
    else:
        return
    raise _changed(spec.name, dataset, began)


def _standing(directory: RunDirectory, dataset: data.Dataset | None = None) -> tuple[str, str]:
    """``new``, ``resume`` or ``done``, and what is wrong with a finished run that must be measured again.

    :class:`UserError` for a finished run on other images than `dataset` has now.
    """
    run = directory.run()
    if run is None:
        return "new", ""
    if run.state in RESUMABLE:
        return "resume", ""
    began = run.environment.get("dataset_hash")
    if dataset is not None and began and began != dataset.hash:
        raise _changed(directory.path.name, dataset, began)
    try:
        run.check_tables()
    except UserError as error:
        return "resume", f"{error}; measuring again"
    return "done", ""


def execute(spec: RunSpec, context: Context, *, group: Group, reporter: Reporter, stop: Stop) -> str:
    """Bring one run to its end and return its state. Raises what stopped it, after recording it."""
    directory = RunDirectory(context.results, spec)
    found = _find_data(spec, context) if group.rank == 0 else None
    known = found if isinstance(found, data.Dataset) else None
    standing, remark = agreed(group, lambda: _standing(directory, known))
    reporter.begin(spec, standing)
    if remark:
        reporter.note(remark)
    if standing == "done":
        return agreed(group, directory.state)
    execution = Execution(
        group=group,
        device=choose_device(context.device),
        strategy=context.strategy,
        recompute=context.recompute,
        precision=spec.precision,
    )
    with contextlib.ExitStack() as stack:

        def claim() -> str:
            """The run is ours. Another process may have brought it to its end while we waited."""
            how = {"strategy": context.strategy, "recompute": context.recompute}
            where = environment(execution.device, group, known.hash if known else "") | how
            patience_s = 600.0 if spec.method == BASELINE else 2.0  # the baseline is soon done, and every plan has it
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
            except Held:
                if context.shared:
                    return "held"
                raise
            return _standing(directory, known)[0]

        outcome = agreed(group, claim)
        if outcome == "held":
            reporter.note(f"{spec.name}: held by another process, left to it")
            return "held"
        if outcome == "done":
            return agreed(group, directory.state)
        with _recorded(directory, group, stop), execution.multiplication():
            agreed(group, lambda: _require_data(directory, found))
            # rank 0 hands it on to itself alone: the others map the same files, which rank 0 made where they were not
            dataset = known or data.load(spec.dataset, context.data_root)
            carry_out(ActiveRun(spec, dataset, directory, execution, reporter, stop, context.tensorboard))
    return "finished"


def _find_data(spec: RunSpec, context: Context) -> data.Dataset | UserError:
    """The run's data set, or what is wrong with it: the run is to say so in its own status."""
    try:
        return data.load(spec.dataset, context.data_root)
    except UserError as error:
        return error


def _require_data(directory: RunDirectory, dataset: data.Dataset | UserError | None) -> None:
    """:class:`UserError` if the run was begun on other images, or another split, than the name stands for now.

    And if there is no data set at all.
    """
    if not isinstance(dataset, data.Dataset):
        raise dataset or UserError("no data set")
    began = load_run(directory.path).environment.get("dataset_hash")
    if began and began != dataset.hash:
        raise _changed(directory.path.name, dataset, began)


def _changed(name: str, dataset: data.Dataset, began: str) -> UserError:
    return UserError(
        f"{name}: data set {dataset.name} has changed since the run began (hash {began[:12]}, now "
        f"{dataset.hash[:12]}); import it as it was, choose other --results, or {checkpoints.AFRESH}"
    )


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
