"""``--jobs N``: N runs side by side on one machine, stopped and killed together, to the numbers of one process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmark.cli import jobs
from benchmark.cli import status as status_verb
from benchmark.cli.jobs import share_of_cores, visible_gpus
from benchmark.cli.parser import main
from benchmark.runs import environment, slurm
from benchmark.runs.directory import is_alive
from benchmark.runs.store import load_runs
from tests.conftest import ROOT
from tests.robustness.helpers import numbers

FLAGS = """
    --methods maml,metasgd --dataset sine --network sine-mlp --ways 1 --shots 3 --channels 8 --meta-batch 3
    --query-train 3 --query-test 3 --steps 1 --validation-tasks 17 --tasks 12 --device cpu --seeds 0,1
    --validate-every 20
"""
GRID = ["run", *FLAGS.split()]


def test_the_cores_are_shared_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 3, 5, 7, 11})
    assert [share_of_cores(share, 2) for share in range(2)] == [(2, 5, 11), (3, 7)]
    assert [share_of_cores(share, 7) for share in range(7)] == [(2,), (3,), (5,), (7,), (11,), (2,), (3,)]


def started(results: Path, iterations: int) -> subprocess.Popen:
    """Two jobs for four runs, each ``running`` with a checkpoint of its first half, at 20 ms and more a step."""
    line = [sys.executable, "-m", "tests.slowly", *GRID, "--iterations", str(iterations), "--results", str(results)]
    process = subprocess.Popen([*line, "--jobs", "2"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for _ in range(3000):
        runs = load_runs(results, lambda text: None) if results.exists() else []
        if sum(0 < run.status.get("iteration", 0) < iterations // 2 and is_alive(run.path) for run in runs) == 2:
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    raise AssertionError("never came so far")


def test_stopped_killed_and_begun_again_two_jobs_end_in_the_numbers_of_one_process(tmp_path: Path) -> None:
    results, iterations = tmp_path / "results", 600
    with started(results, iterations) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    states = [run.state for run in load_runs(results)]  # one job may be through with a run before the other begins
    assert states.count("interrupted") == 2
    assert set(states) <= {"interrupted", "finished"}
    with started(results, iterations) as process:
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.read()  # to its end: no job lives
    assert not any(is_alive(run.path) for run in load_runs(results))
    line = [*GRID, "--iterations", str(iterations)]
    assert main([*line, "--results", str(results), "--jobs", "2"]) == 0
    assert main([*line, "--results", str(tmp_path / "alone"), "--workers", "1"]) == 0
    found = load_runs(results)
    assert [run.state for run in found] == ["finished"] * 4
    for run in found:
        assert "--jobs" not in run.command
        assert numbers(run.path) == numbers(tmp_path / "alone" / run.name)


def test_told_by_the_system_and_by_the_command_every_job_writes_its_checkpoint(tmp_path: Path) -> None:
    """As systemd and Slurm tell all processes of a service or step."""
    results = tmp_path / "results"
    with started(results, 100_000) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        at_work = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(at_work) == 2
        for pid in (*at_work, process.pid):
            os.kill(pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert [run.state for run in load_runs(results)] == ["interrupted"] * 2


def deaf(words: tuple[str, ...], place: tuple[tuple[int, ...], str], mouth: object, lifeline: object) -> None:
    """A job that does not listen; the one with core 0 ends at once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(words[0], str(os.getpid())).touch()
    while place[0] != (0,):
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_does_not_listen_is_ended_and_one_that_is_gone_is_left_alone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be that of another process by then."""
    assert jobs.STOP_S == 15.0, "as docs/robustness.md says"
    told: list[int] = []
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append(pid) or kill(pid, number))
    monkeypatch.setattr(jobs, "STOP_S", 0.5)
    monkeypatch.setattr(jobs, "_carry_out", deaf)
    monkeypatch.setattr(jobs, "share_of_cores", lambda share, count: (share,))

    def ask() -> None:
        while len(begun := [int(path.name) for path in tmp_path.iterdir()]) < 2 or all(map(alive, begun)):
            time.sleep(0.05)
        kill(os.getpid(), number)

    def alive(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(SystemExit) as ending:
        jobs.side_by_side([str(tmp_path)], 2, "cpu")
    assert ending.value.code == 128 + number
    begun = {int(path.name) for path in tmp_path.iterdir()}
    assert len(begun) == 2
    assert not any(map(alive, begun))
    assert len(set(told)) == 1, "the one that was gone was told"


def test_jobs_have_the_gpus_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a, GPU-7c, GPU-gone")
    assert visible_gpus() == ["GPU-5a", "GPU-7c"]


@pytest.mark.parametrize("requeues", [True, False])
def test_only_the_starting_process_puts_a_job_back(requeues: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(arguments: object) -> None:
        raise SystemExit(138)

    asked: list[object] = []
    monkeypatch.setattr(status_verb, "main", warned)
    monkeypatch.setattr(slurm, "requeue_if_warned", asked.append)
    with pytest.raises(SystemExit):
        main(["status"], requeues=requeues)
    assert asked == [138] * requeues


def test_more_workers_than_gpus_is_one_line(
    sbatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main([*GRID, "--workers", "2", "--results", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err == "error: --workers 2 want a GPU each; there is 1, take fewer\n"
    (tmp_path / "cluster.toml").write_text("gpus = 2\n")  # a node has others than the machine that submits
    there = ["--workers", "2", "--slurm", str(tmp_path / "cluster.toml"), "--dry-run"]
    assert main([*GRID, *there, "--results", str(tmp_path / "results")]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--jobs", "0"), "--jobs must be at least 1, got 0"),
        (
            ("--jobs", "2", "--device", "cpu:0"),
            "--device cpu:0 is the place of one process; for several take --device cpu",
        ),
    ],
)
def test_a_wrong_number_is_one_line(
    flags: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GRID, *flags, "--results", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
