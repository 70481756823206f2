"""A plan: many runs, one after another, each whatever became of those before it.

Every process of a group executes the same plan in the same order. A failure that one process has alone leaves the
others inside a collective: then all end, and the starting process begins again with the rest of the plan.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmark.engine import parallel
from benchmark.engine.allocator import keep_large_buffers
from benchmark.engine.group import Group
from benchmark.engine.shutdown import Interrupted, Stop
from benchmark.errors import UserError
from benchmark.runs import owner, store
from benchmark.runs.agreement import Agreed, agreed
from benchmark.runs.assembly import is_out_of_memory
from benchmark.runs.directory import RunDirectory
from benchmark.runs.progress import Reporter
from benchmark.runs.run import Context, due, execute
from benchmark.screen import Screen
from benchmark.spec import RunSpec
from benchmark.train import Diverged

POLL_S = 1.0
"""How often it is looked whether a run is still held by another process."""

HINT = "; try --recompute, fewer --channels, or fewer tasks at once (--meta-batch, --strategy loop)"


class RunFailed(Exception):
    """In one of several processes a run failed, and the others are inside a collective: the group has to end.

    `states` are those of the runs before it and its own.
    """

    def __init__(self, states: dict[str, str], name: str, message: str, expected: bool) -> None:
        super().__init__(states, name, message, expected)
        self.states, self.name, self.message, self.expected = states, name, message, expected

    def __str__(self) -> str:
        return f"{self.name} {self.states[self.name]}: {self.message}"


def run_all(specs: Sequence[RunSpec], context: Context, *, group: Group, reporter: Reporter) -> dict[str, str]:
    """Execute `specs` in order; a run that fails or diverges does not keep the others from running.

    Returns the state of each run by name. An interruption ends everything: :class:`SystemExit` with 128 + signal.
    """
    states: dict[str, str] = {}
    stop = Stop()
    with stop.installed(), _ending_with(stop):
        for spec in specs:
            stop.heed(group)
            try:
                states[spec.name] = execute(spec, context, group=group, reporter=reporter, stop=stop)
            except Diverged as error:
                states[spec.name] = "diverged"
                reporter.note(f"{spec.name} diverged: {error}")
            except Interrupted:
                reporter.note(f"{spec.name} interrupted; the same command goes on from its checkpoint")
                sys.exit(stop.exit_status)
            except Exception as error:
                states[spec.name] = "oom" if is_out_of_memory(error) else "failed"
                message = str(error) + (HINT if is_out_of_memory(error) else "")
                expected = isinstance(error, UserError) or is_out_of_memory(error)
                if group.size > 1 and not isinstance(error, Agreed):
                    raise RunFailed(states, spec.name, message, expected) from error
                reporter.note(f"{spec.name} {states[spec.name]}: {message}")
                if not expected:
                    reporter.traceback()
            gc.collect()  # the failed run's tensors were held by its traceback until here
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        stop.heed(group)
    return states


@contextlib.contextmanager
def _ending_with(stop: Stop) -> Iterator[None]:
    """What is interrupted inside the block ends the process with the status of the signal."""
    try:
        yield
    except Interrupted:
        sys.exit(stop.exit_status)


def run_plan(group: Group, specs: Sequence[RunSpec], context: Context, begun: int = 0) -> dict[str, str]:
    """:func:`run_all` as one of the processes of `group`: what :func:`benchmark.engine.parallel.launch` starts."""
    keep_large_buffers()
    console = Screen(stderr=True) if group.rank == 0 else None
    return run_all(specs, context, group=group, reporter=Reporter(console, total=begun + len(specs), begun=begun))


def launch_plan(specs: Sequence[RunSpec], context: Context, *, workers: int, device: torch.device) -> dict[str, str]:
    """:func:`run_plan` in `workers` processes, begun again with the rest of the plan after a run that failed in one."""
    states: dict[str, str] = {}
    left = list(specs)
    reporter = Reporter(Screen(stderr=True))
    while left:
        try:
            return states | parallel.launch(run_plan, (left, context, len(states)), workers=workers, device=device)
        except RunFailed as failure:
            reporter.note(str(failure))
            if not failure.expected:
                reporter.note("\n".join(getattr(failure, "__notes__", ())))
            states |= failure.states
            spec = next(spec for spec in left if spec.name == failure.name)
            _record_failure(RunDirectory(context.results, spec), states[spec.name], failure.message)
            left = left[left.index(spec) + 1 :]
            if parallel.under_torchrun():
                raise UserError(f"{failure}; start the same command again for the rest of the plan") from failure
    return states


def share_plan(
    specs: Sequence[RunSpec], context: Context, *, workers: int, device: torch.device, wait: bool = True
) -> dict[str, str]:
    """:func:`launch_plan` of a ``shared`` context, beside other processes that carry out the same specs.

    What is done needs no worker. A run that another process holds is left to it and come back to at the end: it is done
    by then, or taken up from its checkpoint where that process was killed. Without `wait` it is come back to only where
    it is not sure that its process lives, and else stays ``held``.
    """
    if parallel.under_torchrun():
        return parallel.launch(_share_as_one_of_many, (specs, context, wait), device=device)

    def carry_out(left: Sequence[RunSpec], begun: int) -> dict[str, str]:
        return launch_plan(left, context, workers=workers, device=device)

    return _share(specs, context, Group(), carry_out, wait=wait)


def _share_as_one_of_many(group: Group, specs: Sequence[RunSpec], context: Context, wait: bool) -> dict[str, str]:
    """:func:`share_plan` as one of the processes that ``torchrun`` or srun started, all of which stay to the end."""
    return _share(specs, context, group, lambda left, begun: run_plan(group, left, context, begun), wait=wait)


def _share(
    specs: Sequence[RunSpec],
    context: Context,
    group: Group,
    carry_out: Callable[[Sequence[RunSpec], int], dict[str, str]],
    *,
    wait: bool,
) -> dict[str, str]:
    states: dict[str, str] = {}
    reporter = Reporter(Screen(stderr=True) if group.rank == 0 else None)

    def due_of(some: Sequence[RunSpec]) -> list[RunSpec]:
        """Those that have no result yet, as rank 0 sees it; the states of the others are noted on every rank."""
        left, ended = agreed(group, lambda: _left(some, context))
        states.update(ended)
        return left

    with Stop().installed() as stop, _ending_with(stop):
        left = due_of(specs)
        while left:
            states |= carry_out(left, len(states))
            left = [spec for spec in left if states[spec.name] == "held"]
            if left and wait:
                reporter.note(f"waiting for what another process holds: {', '.join(spec.name for spec in left)}")
            free = False
            while left and not free:
                found = agreed(group, functools.partial(_standings, tuple(left), context))
                stop.heed(group)
                left = [spec for spec in left if wait or found[spec.name] != "held"]
                free = "free" in found.values()
                time.sleep(0 if free else POLL_S)
            left = due_of(left)
        stop.heed(group)
    return {spec.name: states[spec.name] for spec in specs}


def _standings(specs: Sequence[RunSpec], context: Context) -> dict[str, str]:
    return {spec.name: owner.standing(context.results / spec.name)[0] for spec in specs}


def _left(specs: Sequence[RunSpec], context: Context) -> tuple[list[RunSpec], dict[str, str]]:
    states: dict[str, str] = {}
    left = [spec for spec in specs if not _done(spec, context, states)]
    return left, states


def _done(spec: RunSpec, context: Context, states: dict[str, str]) -> bool:
    """Whether the run has its result, whose state is then noted. One that cannot be read is for `execute` to judge."""
    with contextlib.suppress(UserError):
        if due(spec, context.results) == "done":
            states[spec.name] = store.load_run(context.results / spec.name).state
            return True
    return False


def _record_failure(directory: RunDirectory, state: str, message: str) -> None:
    """What really stopped a run: rank 0, which writes, may have seen no more than that another rank was gone."""
    with contextlib.suppress(UserError):
        if (run := directory.run()) is not None:
            with directory.claim(run.environment, run.command):
                directory.set_status(state, message=message.splitlines()[0] if message else state)
