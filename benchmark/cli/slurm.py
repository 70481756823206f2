"""``--slurm``: the same command as an array job, whose tasks take runs from the plan until none is left.

Every task is this very command, beside the others as on one machine: a run that another task holds is left to it. A
task that is warned of the end of its time writes its checkpoint and is put back into the queue.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.flags import output, without
from benchmark.errors import UserError
from benchmark.files import now, write_json
from benchmark.runs.cluster import Cluster
from benchmark.runs.standing import JOBS
from benchmark.screen import say

if TYPE_CHECKING:
    import submitit

REQUEUES = 1_000_000
"""How often a job may run out of time: as often as the work needs."""


class ArrayTask:
    """One task of the array: the command line `words`, in each of its processes, which may use `cores` of a node."""

    def __init__(self, words: Sequence[str], cores: int) -> None:
        self.words, self.cores = tuple(words), cores

    def __call__(self) -> None:
        os.environ["SLURM_CPUS_PER_TASK"] = str(self.cores)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers of one thread, as on one machine
        from benchmark.cli.parser import main

        status = main(self.words)
        if status:
            sys.exit(status)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again when the time is up while Python still starts: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is submitted: a command line, and the paths below `results` of the runs that it will take, where known."""

    words: tuple[str, ...]
    results: Path
    runs: tuple[str, ...]
    tasks: int
    later: int = 0
    """Further runs, whose names are not known yet."""


def submit(job: Submission, cluster: Cluster, *, dry_run: bool) -> int:
    """Submit, and say the number of the job; with `dry_run` print the script instead."""
    executor = _executor(cluster, job.results)
    task = ArrayTask(without(job.words, valued=("--slurm",), flags=("--dry-run",)), cluster.cores)
    if dry_run:
        if job.tasks > 1:
            executor.parameters["map_count"] = job.tasks
        script = executor._make_submission_file_text(executor._submitit_command_str, "")
        output().print(script, markup=False, highlight=False, soft_wrap=True)
        return 0
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    folder = job.results / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with executor.batch():
            submitted = [executor.submit(task) for _ in range(job.tasks)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"Slurm took no job ({str(error).strip().splitlines()[-1]})") from error
    number = submitted[0].job_id.partition("_")[0]
    command = ["python", "-m", "benchmark", *task.words]
    write_json(
        folder / f"{number}.json", {"job": number, "command": command, "submitted": now(), "runs": list(job.runs)}
    )
    count = f"{len(job.runs)} runs" + (f", and {job.later} that a tuning will name" if job.later else "")
    say(f"job {number}: {job.tasks} task{'s' if job.tasks > 1 else ''} for {count}; logs in {folder}")
    say(f"follow it with: python -m benchmark status --results {job.results} --watch")
    return 0


def _executor(cluster: Cluster, results: Path) -> submitit.SlurmExecutor:
    try:
        import submitit
    except ImportError as error:
        raise UserError("--slurm needs submitit: pip install 'inner-optimizer-benchmark[cluster]'") from error
    try:
        executor = submitit.SlurmExecutor(folder=results / JOBS, max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise UserError("--slurm needs Slurm, and there is no srun on this machine; log in to the cluster") from error
    words = {key: value for key in ("partition", "account", "qos", "constraint") if (value := getattr(cluster, key))}
    executor.update_parameters(
        **words,
        job_name="benchmark",
        time=cluster.minutes,
        mem=cluster.memory,
        nodes=cluster.nodes,
        ntasks_per_node=cluster.processes // cluster.nodes,
        cpus_per_task=cluster.cores,
        signal_delay_s=cluster.warn,
        setup=list(cluster.setup) or None,
        stderr_to_stdout=True,
        additional_parameters={"requeue": True},
        **({"gpus_per_node": cluster.gpus} if cluster.gpus else {}),
    )
    return executor
