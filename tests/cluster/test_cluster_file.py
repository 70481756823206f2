"""A cluster file is checked when it is read, and every mistake is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmark.cli.flags import without
from benchmark.cli.parser import main
from benchmark.errors import UserError
from benchmark.runs.cluster import Cluster, read, seconds

FLAGS = "--methods maml --dataset sine --network sine-mlp --ways 1 --channels 8 --tasks 4"
RUN = ["run", *FLAGS.split()]


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, 'partition = "main"\njobs = 3\ntime = "1-02:30:01"\nsetup = ["module load python"]\n')
    assert read(path) == Cluster(partition="main", jobs=3, time="1-02:30:01", setup=("module load python",))
    assert read(path).minutes == 26 * 60 + 31
    assert read(written(tmp_path, "")) == Cluster()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("job = 3", "unknown key 'job' (did you mean 'jobs'?)"),
        ("jobs = 0", "jobs must be a whole number from 1 on, got 0"),
        ("cpus = true", "cpus must be a whole number from 1 on, got True"),
        ('time = "soon"', "time must be"),
        ("time = 0", "time must be"),
        ("time = 2\nwarn = 120", "a job of 2 min is warned 120 s before its end"),
        ('memory = "8 GB"', "memory must be a word"),
        ('memory = "8GB"', "memory must be a number with K, M, G or T"),
        ('partition = "a\\n#SBATCH --exclusive"', "partition must be a word"),
        ('setup = "module load python"', "setup must be a list of shell commands"),
        ('setup = ["a\\nb"]', "setup must be a list of shell commands"),
        ("jobs = ", "not valid TOML"),
    ],
)
def test_a_mistake_is_one_line(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as refused:
        read(path)
    assert said in str(refused.value)
    assert main([*RUN, "--slurm", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {refused.value}\n"
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(("time", "expected"), [(30, 1800), ("30:00", 1800), ("2:00:00", 7200), ("2-0:00:00", 172_800)])
def test_times(time: object, expected: int) -> None:
    assert seconds(time) == expected


def test_nodes_and_gpus_make_processes() -> None:
    assert (Cluster(cpus=4).processes, Cluster(cpus=4).cores) == (1, 4)
    assert (Cluster(gpus=4, cpus=16).processes, Cluster(gpus=4, cpus=16).cores) == (1, 16)
    assert (Cluster(nodes=2, cpus=4).processes, Cluster(nodes=2, cpus=4).cores) == (8, 1)
    assert (Cluster(nodes=2, gpus=2, cpus=8).processes, Cluster(nodes=2, gpus=2, cpus=8).cores) == (4, 4)


def test_without_submitit_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    line = [*RUN, "--results", str(tmp_path / "results"), "--slurm", str(written(tmp_path, ""))]
    assert main(line) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: --slurm needs submitit: pip install 'inner-optimizer-benchmark[cluster]'"
    )
    assert not (tmp_path / "results").exists()


def test_away_from_a_cluster_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    assert main([*RUN, "--slurm", str(written(tmp_path, ""))]) == 2
    assert "there is no srun on this machine" in capsys.readouterr().err


def test_more_processes_than_tasks_of_a_meta_batch_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "nodes = 2\ncpus = 8")
    assert main([*RUN, "--meta-batch", "4", "--slurm", str(path)]) == 2
    assert "16 processes on its nodes share a meta-batch of 4 tasks" in capsys.readouterr().err


def test_flags_are_left_out_of_a_command_with_their_values() -> None:
    words = ["run", "--slurm", "a.toml", "--methods", "maml", "--slurm=b.toml", "--dry-run", "--seeds", "0"]
    assert without(words, valued=("--slurm",), flags=("--dry-run",)) == ("run", "--methods", "maml", "--seeds", "0")
