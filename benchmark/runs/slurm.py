"""The cluster's scheduler, asked by its own commands: which job this process is, which jobs are queued, to be requeued.

Nothing here needs a package; where there is no Slurm the answers are None.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from benchmark.errors import UserError

CACHE_S = 10.0
"""How long an answer about one job serves: a thousand tasks that wait must not be a load for the scheduler."""

ASK_S = 20.0
"""How long the scheduler may take to answer."""

COLUMNS = ("JobID", "ArrayJobID", "ArrayTaskID", "State", "RestartCnt", "NodeList", "Reason")


@dataclass(frozen=True)
class Job:
    """One job in the queue, or one task of an array: the scheduler counts both as jobs."""

    id: str
    label: str
    """The id, or ``array_task``: what its log is named by and people cancel."""
    state: str = "RUNNING"
    restarts: int = 0
    nodes: str = ""
    reason: str = ""

    @property
    def array(self) -> str:
        """The id under which it was submitted."""
        return self.label.partition("_")[0]


def this_job() -> Job | None:
    """The job that this process belongs to."""
    number = os.environ.get("SLURM_JOB_ID")
    if not number:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    label = f"{array}_{task}" if array and task else number
    return Job(number, label, restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")))


_found: dict[str, tuple[float, Job | None]] = {}
"""When it was asked for a job by its id, and the answer."""


def find(number: str) -> tuple[bool, Job | None]:
    """Whether the scheduler answers, and the job with this id unless it is over."""
    fresh = number in _found and time.monotonic() - _found[number][0] < CACHE_S
    if not fresh and queued([number]) is None:
        return False, None
    return True, _found[number][1]


def queued(ids: Iterable[str]) -> list[Job] | None:
    """Those of the jobs `ids` that are not over, the tasks of an array one by one; None where nobody answers."""
    ids = sorted(set(ids))
    if not ids:
        return []
    jobs = _ask(",".join(ids))
    if jobs is not None:
        at = time.monotonic()
        # tasks that were never started bear the id of their array, which is that of its last task, too
        started = {job.id: job for job in jobs if job.nodes}
        _found.update({number: (at, started.get(number)) for number in {*ids, *started}})
    return jobs


def _ask(ids: str) -> list[Job] | None:
    columns = ",".join(f"{name}:|" for name in COLUMNS)
    line = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={ids}", f"--Format={columns}"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return [] if "Invalid job id" in done.stderr else None
    jobs = []
    for row in done.stdout.splitlines():
        number, array, task, state, restarts, nodes, reason = row.split("|")[: len(COLUMNS)]
        if state in OVER:
            continue
        label = f"{array}_{task}" if task.isdigit() else number
        jobs.append(Job(number, label, state, int(restarts or 0), nodes, reason))
    return jobs


OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
"""States of a job that holds no node any more, which squeue still shows for a while."""


WARNINGS = frozenset(128 + getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Exit statuses of a command that was warned of the end of its time."""


def warning_signals() -> set[int]:
    """The signals by which this job is warned, but for submitit, whose own handler does what is to be done."""
    if this_job() is None or "SUBMITIT_EXECUTOR" in os.environ:
        return set()
    return {status - 128 for status in WARNINGS}


def requeue_if_warned(status: object) -> None:
    """Put this job back into the queue, once, if the command ends with `status` because its time was nearly up."""
    job = this_job()
    if job is None or status not in WARNINGS or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    line = ["scontrol", "requeue", job.label]  # the id of an array's last task is that of the whole array
    try:
        subprocess.run(line, capture_output=True, text=True, check=True, timeout=3 * ASK_S)
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        raise UserError(f"job {job.label} could not be requeued ({why}); submit the same command again") from error


def export_ranks() -> None:
    """Set what ``torchrun`` would set, in each of the several processes that srun started as one step of a job.

    The first node of the step is where they meet, at a port that follows from the job's number.
    """
    size = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if size < 2 or "RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) * 31 % 10_000 + int(os.environ.get("SLURM_STEP_ID", "0")) % 31
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "MASTER_ADDR": _address(os.environ["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(port),
    }


def _address(nodes: str) -> str:
    """Where the first of these nodes is reached."""
    try:
        hosts = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True, timeout=ASK_S
        ).stdout.split()
        about = subprocess.run(
            ["scontrol", "show", "node", hosts[0]], capture_output=True, text=True, check=True, timeout=ASK_S
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"the processes of this job cannot find each other: scontrol knows no {nodes!r}") from error
    found = re.search(r"NodeAddr=(\S+)", about)
    return found[1] if found else hosts[0]
