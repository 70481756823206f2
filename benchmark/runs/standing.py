"""Where every run of a results folder stands: what its directory says, who is at it, and what waits in the queue.

A submitted job leaves ``slurm/<number>.json`` in the results folder: which runs it is to take, and its logs beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.files import read_json
from benchmark.runs import owner, slurm, store
from benchmark.runs.store import Run

JOBS = "slurm"
"""Folder of jobs and their logs below the results."""

WAITING = ("running", "interrupted")
"""States in which a run is taken up again by a job that has it in its plan."""

TAIL_BYTES = 4096


@dataclass(frozen=True)
class Standing:
    """One run: its path below the results, how it stands, and where it is being run."""

    path: str
    state: str
    """One of :data:`benchmark.runs.store.STATES`, or ``killed``: says running, but nobody is at it; ``silent``: nor is
    that sure yet; ``damaged``: finished, but its tables are not those that were written; ``queued``: in the plan of a
    job that is not over; ``not begun``: in that of one of which the scheduler says nothing."""
    run: Run | None = None
    where: str = ""

    @property
    def per_s(self) -> float:
        """Meta-steps a second, over the run so far; 0 where that is not known."""
        status = self.run.status if self.run else {}
        wall = status.get("wall_s", {}).get("train", 0.0)
        return status.get("iteration", 0) / wall if wall > 0 else 0.0


@dataclass
class Survey:
    """Every run, every job that is not over or has something to say, and what could not be read."""

    runs: list[Standing] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether anything may still change."""
        return any(each.state in ("running", "queued", "silent", "not begun") for each in self.runs)


def survey(results: Path) -> Survey:
    """Read the folder, those of a study below it included, and ask the scheduler about the jobs submitted from it."""
    found = Survey()
    plans = list(_plans(results, found.refused.append))
    jobs = slurm.queued(str(plan["job"]) for plan in plans)
    alive = {job.array for job in jobs or []}
    queued = {name: str(plan["job"]) for plan in plans if plan["job"] in alive for name in plan["runs"]}
    seen = set()
    for folder in store.results_folders(results):
        for run in store.load_runs(folder, found.refused.append):
            path = run.path.relative_to(results).as_posix()
            seen.add(path)
            try:
                found.runs.append(_standing(path, run, queued.get(path)))
            except UserError as error:  # it was moved away meanwhile
                found.refused.append(str(error))
    if jobs is None:
        waiting, state = {name: str(plan["job"]) for plan in plans for name in plan["runs"]}, "not begun"
    else:
        waiting, state = queued, "queued"
    found.runs += [Standing(path, state, where=f"job {job}") for path, job in waiting.items() if path not in seen]
    for plan in plans:
        found.jobs += _about(plan, None if jobs is None else [job for job in jobs if job.array == plan["job"]], results)
    return found


def _plans(results: Path, refused: Any) -> Iterable[dict[str, Any]]:
    for path in sorted((results / JOBS).glob("*.json")):
        try:
            plan = read_json(path)
            if not isinstance(plan.get("job"), str) or not isinstance(plan.get("runs"), list):
                raise UserError(f"{path}: has no job, or no list of runs")
        except UserError as error:
            refused(str(error))
        else:
            yield plan


def state_of(run: Run) -> str:
    """How a run stands by itself, whatever jobs have it in their plans: see :attr:`Standing.state`."""
    return _standing("", run, None).state


def _standing(path: str, run: Run, job: str | None) -> Standing:
    state, where = run.state, ""
    if state == "finished" and not run.is_intact():
        state = "damaged"
    if state in WAITING:
        held, holder = owner.standing(run.path)
        if held == "free" and (now := store.load_run(run.path)).state != run.state:  # it ended since it was read
            return _standing(path, now, job)
        if held == "free":
            state = "queued" if job else "killed" if state == "running" else state
            where = f"job {job}" if job else ""
        else:
            state, where = ("running" if held == "held" else "silent"), str(holder or "")
    return Standing(path, state, run, where)


def _about(plan: dict[str, Any], jobs: list[slurm.Job] | None, results: Path) -> list[str]:
    """One line on a job that is not over; and for tasks that ended in an error the last line of their log."""
    number = plan["job"]
    if jobs is None:
        return [f"job {number}: squeue does not answer"]
    lines = []
    if jobs:
        running = [job for job in jobs if job.state == "RUNNING"]
        others = [job for job in jobs if job.state != "RUNNING"]
        words = [f"{len(running)} running on {', '.join(sorted({job.nodes for job in running}))}"] if running else []
        for state in dict.fromkeys(job.state for job in others):
            reasons = sorted({job.reason for job in others if job.state == state and job.reason not in ("", "None")})
            count = sum(job.state == state for job in others)
            words.append(f"{count} {state.lower()}" + (f" ({', '.join(reasons)})" if reasons else ""))
        lines.append(f"job {number}: {', '.join(words)}")
    at_work = {job.label for job in jobs}
    folder = results / JOBS
    for log in sorted([*folder.glob(f"{number}_0_log.out"), *folder.glob(f"{number}_*_0_log.out")]):
        label = log.name.removesuffix("_0_log.out")
        ended = log.with_name(f"{label}_0_result.pkl")
        if label not in at_work and not _succeeded(ended, log):
            lines.append(f"job {label} failed: {_last_line(log)}")
    return lines


def _succeeded(result: Path, log: Path) -> bool:
    """Whether a task came to its end: submitit leaves its result, and says so in the log."""
    return result.exists() and b"Job completed successfully" in log.read_bytes()[-TAIL_BYTES:]


def _last_line(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "its log is empty"
