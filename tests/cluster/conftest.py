"""One Slurm for the tests that need a real one; for the others a scheduler that says what a test wants."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.runs import slurm
from tests.cluster.local_slurm import LocalSlurm, missing

FAKE_SQUEUE = """#!/bin/sh
cat "$(dirname "$0")/answer" 2>/dev/null || { echo "slurm_load_jobs error: Unable to contact controller" >&2; exit 1; }
"""


@pytest.fixture(scope="session")
def cluster_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSlurm]:
    """Two nodes of one core each; the test is skipped, with the reason, where there can be none."""
    if why := missing():
        pytest.skip(why)
    with LocalSlurm(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``squeue("RUNNING|0")`` makes the scheduler say so of job 7, task 1 of array 6: its state and restarts.

    Several texts are tasks 1, 2 … of the array; ``""``: it knows none. Before it is called nobody answers.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "squeue").write_text(FAKE_SQUEUE)
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "CACHE_S", -1.0)

    def says(*texts: str) -> None:
        lines = []
        for task, text in enumerate((text for text in texts if text), start=1):
            state, _, restarts = text.partition("|")
            node = "" if state == "PENDING" else f"n{task}"
            lines.append(f"{6 + task}|6|{task}|{state}|{restarts}|{node}|None|\n")
        (programs / "answer").write_text("".join(lines))

    return says


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that takes every job as number 7 and does nothing; the last script that it was given."""
    pytest.importorskip("submitit")
    programs, script = tmp_path / "bin", tmp_path / "script.sh"
    programs.mkdir()
    for name, text in (("srun", ""), ("sbatch", f'cp "$1" {script}; echo Submitted batch job 7')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return script
