"""The same command on a real Slurm: a grid to its end, and what goes wrong on clusters; the numbers of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.runs.store import load_runs
from tests.cluster.local_slurm import LocalSlurm, wait_until
from tests.conftest import ROOT
from tests.robustness.helpers import numbers

pytest.importorskip("submitit", reason="--slurm needs submitit")

TINY = """
    --dataset sine --network sine-mlp --ways 1 --shots 3 --channels 8 --meta-batch 3 --query-train 3 --query-test 3
    --steps 1 --validate-every 100 --validation-tasks 17 --tasks 12 --device cpu
"""
START_S = 240
"""How long a job may take to be started on a busy machine, with Python and torch."""


class Cluster:
    """A results folder, and the command line as one of the cluster's users runs it."""

    def __init__(self, slurm: LocalSlurm, folder: Path) -> None:
        self.slurm, self.folder, self.results = slurm, folder, folder / "results"
        self.grid: list[str] = []

    def benchmark(self, *words: str | Path, results: Path | None = None) -> str:
        """Standard output of a command."""
        line = [sys.executable, "-m", "benchmark", *map(str, words), "--results", str(results or self.results)]
        done = subprocess.run(
            line, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**self.slurm.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def submit(self, *flags: str, **keys: object) -> str:
        """Submit the grid that `flags` say with a cluster file of these `keys`; the job's number."""
        self.grid = ["run", *TINY.split(), *flags]
        file = self.folder / "cluster.toml"
        given = {"jobs": 2, "time": 60, "warn": 30, "memory": "1G"} | keys
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items()))
        said = self.benchmark(*self.grid, "--slurm", file)
        assert said.startswith("job ")
        return said.split()[1].rstrip(":")

    def states(self) -> dict[str, str]:
        """State by name, as ``status`` has it."""
        lines = [line.split() for line in self.benchmark("status").splitlines()[1:]]
        return {words[0]: words[1] for words in lines if words and words[0].startswith("sine-") and words[0][-1] != ":"}

    def iterations(self) -> dict[str, int]:
        return {run.name: run.status.get("iteration", 0) for run in load_runs(self.results, lambda text: None)}

    def queue(self) -> list[str]:
        return self.slurm.command("squeue", "-h", "-r", "-o", "%i %T").splitlines()

    def hurry(self) -> None:
        """Start a requeued job now, not in two minutes: one at a time, of two at once Debian's slurmctld 22.05 died."""
        for line in self.queue():
            label, state = line.split()
            if state == "PENDING":
                subprocess.run(
                    ["scontrol", "update", f"JobId={label}", "StartTime=now"],
                    env=self.slurm.environment, check=False, capture_output=True,
                )  # fmt: skip
                return

    def to_the_end(self, timeout_s: float = 900) -> None:
        def over() -> bool:
            self.hurry()
            return not self.queue()

        wait_until(over, timeout_s, every_s=1.0)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted((self.results / "slurm").glob("*_log.out")))

    def as_one_process(self) -> None:
        """Every run is finished, with the numbers of the same grid run without a break by one process."""
        alone = self.folder / "alone"
        self.benchmark(*self.grid, "--workers", "1", results=alone)
        names = {run.name for run in load_runs(alone)}
        assert set(self.states().items()) == {(name, "finished") for name in names}, self.log()
        for name in names:
            assert numbers(self.results / name) == numbers(alone / name)


@pytest.fixture
def cluster(cluster_of_two: LocalSlurm, tmp_path: Path) -> Iterator[Cluster]:
    slurm = cluster_of_two
    yield Cluster(slurm, tmp_path)
    subprocess.run(["scancel", "--user=root"], env=slurm.environment, check=False)
    wait_until(lambda: not slurm.command("squeue", "-h"), 60)


def test_a_grid_by_one_command_ends_in_the_numbers_of_one_process(cluster: Cluster) -> None:
    number = cluster.submit("--methods", "maml,metasgd", "--seeds", "0,1", "--iterations", "40")
    assert set(cluster.states().values()) <= {"queued", "running"}
    assert len(cluster.states()) == 4
    cluster.to_the_end()
    cluster.as_one_process()
    spec = json.loads(next(cluster.results.glob("sine-*/spec.json")).read_text())
    assert not {"--slurm", "--shared", "--results"} & set(spec["command"])
    assert json.loads((cluster.results / "slurm" / f"{number}.json").read_text())["job"] == number


def killed(cluster: Cluster, node: str) -> None:
    cluster.slurm.kill_node(node)
    lost = time.monotonic()
    wait_until(lambda: "down" in cluster.slurm.command("sinfo", "-h", "-N", "-n", node, "-o", "%t"), 120)
    assert time.monotonic() - lost > 1
    cluster.slurm.start_node(node)
    wait_until(lambda: "idle" in cluster.slurm.command("sinfo", "-h", "-N", "-n", node, "-o", "%t"), 120)


def at_work(cluster: Cluster, iteration: int) -> Callable[[], bool]:
    """Whether some run has a checkpoint of at least this iteration."""
    return lambda: any(reached >= iteration for reached in cluster.iterations().values())


@pytest.mark.long
def test_a_node_that_dies_loses_what_came_after_a_checkpoint(cluster: Cluster) -> None:
    cluster.submit("--methods", "maml,metasgd", "--seeds", "0,1", "--iterations", "600")
    wait_until(at_work(cluster, 100), START_S)
    killed(cluster, "n2")
    cluster.to_the_end()
    assert "metasgd" in cluster.log()
    cluster.as_one_process()


@pytest.mark.long
def test_a_time_limit_requeues_the_job_until_it_is_done(cluster: Cluster) -> None:
    """One minute, of which the warning comes after half."""
    cluster.submit("--methods", "maml", "--iterations", "1500", jobs=1, time="1:00", warn=30)
    cluster.to_the_end()
    assert "interrupted; the same command goes on from its checkpoint" in cluster.log()
    cluster.as_one_process()


@pytest.mark.long
def test_a_grid_that_meets_a_dead_node_and_its_time_limit_ends_in_the_numbers_of_one_process(cluster: Cluster) -> None:
    """Twelve runs, ``status`` looked at all the while: what is finished stays so; no more run than tasks."""
    cluster.submit("--methods", "maml,metasgd", "--seeds", "0,1,2,3,4,5", "--iterations", "600", time="1:00")
    died, seen = False, []
    while cluster.queue():
        states = cluster.states()
        assert len(states) == 12
        counts = Counter(states.values())
        assert set(counts) <= {"queued", "running", "interrupted", "killed", "finished"}
        assert counts["running"] <= 2
        assert counts["finished"] >= (seen[-1]["finished"] if seen else 0)
        seen += [counts] if not seen or counts != seen[-1] else []
        if not died and counts["finished"] >= 3 and counts["running"]:
            killed(cluster, "n2")
            died = True
        cluster.hurry()
        time.sleep(1.0)
    print(*(dict(counts) for counts in seen), sep="\n")
    assert died
    assert "interrupted; the same command goes on from its checkpoint" in cluster.log(), "no time limit was met"
    cluster.as_one_process()


@pytest.mark.long
def test_scancel_ends_a_job_for_good_and_the_same_command_goes_on(cluster: Cluster) -> None:
    number = cluster.submit("--methods", "maml,metasgd", "--iterations", "600")
    wait_until(at_work(cluster, 100), START_S)
    cluster.slurm.command("scancel", number)
    wait_until(lambda: not cluster.queue(), 60)
    assert set(cluster.states().values()) <= {"interrupted", "finished"}
    assert "interrupted" in cluster.states().values()
    cluster.submit("--methods", "maml,metasgd", "--iterations", "600")
    cluster.to_the_end()
    cluster.as_one_process()


@pytest.mark.long
def test_two_arrays_on_one_folder_do_every_run_once(cluster: Cluster) -> None:
    flags = ("--methods", "maml,metasgd", "--seeds", "0,1", "--iterations", "200")
    cluster.submit(*flags)
    cluster.submit(*flags)
    cluster.to_the_end()
    cluster.as_one_process()
    log = cluster.log()
    for name in cluster.states():
        assert log.count(f"{name} failed") == 0


@pytest.mark.long
def test_a_full_results_disk_fails_the_job_and_once_there_is_room_it_ends(cluster: Cluster) -> None:
    cluster.results = cluster.slurm.small / "results"
    flags = ("--methods", "maml", "--iterations", "300")
    cluster.submit(*flags, jobs=1)
    ballast = cluster.slurm.small / "ballast"
    ballast.write_bytes(bytes(os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_bsize))
    cluster.to_the_end()
    assert "finished" not in cluster.states().values()
    ballast.unlink()
    cluster.submit(*flags, jobs=1)
    cluster.to_the_end()
    cluster.as_one_process()


@pytest.mark.long
@pytest.mark.parametrize("how", ["by Slurm's variables", "by torchrun"])
def test_one_run_over_two_nodes_is_bit_equal_to_one_process(how: str, cluster: Cluster) -> None:
    if how == "by Slurm's variables":
        cluster.submit("--methods", "maml,metasgd", "--iterations", "60", jobs=1, nodes=2)
    else:
        cluster.grid = ["run", *TINY.split(), "--methods", "maml,metasgd", "--iterations", "60"]
        words = " ".join([*cluster.grid, "--results", str(cluster.results)])
        script = cluster.folder / "job.sh"
        script.write_text(
            "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n"
            f"#SBATCH --output={cluster.folder}/torchrun.out\n"
            f"srun {sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --local-addr 127.0.0.1 "
            f"--rdzv-backend c10d --rdzv-id $SLURM_JOB_ID --rdzv-endpoint 127.0.0.1:29611 -m benchmark {words}\n"
        )
        subprocess.run(["sbatch", str(script)], env=cluster.environment, cwd=ROOT, check=True, capture_output=True)
    cluster.to_the_end()
    cluster.as_one_process()
    spec = json.loads(next(cluster.results.glob("sine-*-maml-*/spec.json")).read_text())
    assert spec["environment"]["workers"] == 2
