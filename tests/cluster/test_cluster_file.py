"""A cluster file is checked when it is read, and every mistake is one line."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from benchmark.cli.flags import without
from benchmark.cli.parser import main
from benchmark.errors import UserError
from benchmark.runs import slurm
from benchmark.runs.cluster import Cluster, read, seconds
from benchmark.runs.standing import survey

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


def test_a_job_asks_for_what_the_file_says_and_leaves_its_plan(
    sbatch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = 'jobs = 3\ntime = "1-0:00:00"\nwarn = 300\nmemory = "3G"\ncpus = 2\ngpus = 1\nsetup = ["module load x"]\n'
    file, results = written(tmp_path, keys + 'partition = "p"\naccount = "a"\nqos = "q"\n'), tmp_path / "results"
    line = [*RUN, "--seeds", "0,1", "--results", str(results), "--slurm", str(file)]
    assert main([*line, "--dry-run"]) == 0
    assert not results.exists()
    printed = capsys.readouterr().out
    assert main(line) == 0
    assert capsys.readouterr().out.startswith("job 7: 2 tasks for 2 runs; ")
    script = sbatch.read_text()
    assert script.strip() in printed
    wanted = "array=0-1%2 cpus-per-task=2 gpus-per-node=1 mem=3G nodes=1 partition=p account=a qos=q time=1440"
    for flag in (*wanted.split(), "signal=USR2@300", "requeue", "open-mode=append"):
        assert f"#SBATCH --{flag}\n" in script
    assert "\nmodule load x\n" in script
    plan = json.loads((results / "slurm" / "7.json").read_text())
    assert [name.split("-")[5] for name in plan["runs"]] == ["seed0", "seed1"]
    assert plan["command"][-1] == "--shared"
    assert "--slurm" not in plan["command"]
    assert {(each.state, each.where) for each in survey(results).runs} == {("not begun", "job 7")}  # no squeue answers


def test_a_tuning_and_a_study_are_submitted_with_the_runs_that_are_known(
    sbatch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, results = written(tmp_path, "jobs = 64"), tmp_path / "results"
    knobs = "--dataset sine --network sine-mlp --ways 1 --channels 8".split()  # noqa: SIM905
    line = ["tune", "--methods", "maml", "--trials", "2", *knobs, "--results", str(results), "--slurm", str(file)]
    assert main(line) == 0
    plan = json.loads((results / "slurm" / "7.json").read_text())
    assert len(plan["runs"]) == 2
    assert plan["command"][-1] == str(results)
    study = tmp_path / "study.toml"
    study.write_text(
        'dataset = "sine"\nnetwork = "sine-mlp"\nways = 1\nchannels = 8\nmethods = ["maml"]\n[tuning]\ntrials = 2\n'
        '[[stage]]\nname = "a"\n[[stage]]\nname = "b"\nrecipe = "tuned"\nfolder = "late"\n'
    )
    assert main(["study", str(study), "--results", str(tmp_path / "study"), "--slurm", str(file)]) == 0
    runs = json.loads((tmp_path / "study" / "slurm" / "7.json").read_text())["runs"]
    assert [name.startswith("tuning/") for name in runs] == [True, True, *[False] * (len(runs) - 2)]
    assert not any(name.startswith("late/") for name in runs)
    assert "4 tasks for 3 runs, and 1 that a tuning will name; " in capsys.readouterr().out
    assert main(["study", str(study), "--slurm", str(written(tmp_path, "nodes = 2"))]) == 2
    assert "takes one node a job" in capsys.readouterr().err


def test_slurm_that_takes_no_job_is_one_line(sbatch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin" / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition specified: p' >&2; exit 1\n"
    )
    line = [*RUN, "--results", str(tmp_path / "results"), "--slurm", str(written(tmp_path, 'partition = "p"'))]
    assert main(line) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: Slurm took no job (sbatch: error: invalid partition specified: p)"
    assert not list((tmp_path / "results" / "slurm").glob("*.json"))


@pytest.mark.parametrize("status", [128 + signal.SIGUSR1, 128 + signal.SIGUSR2, 128 + signal.SIGTERM, 1, 0])
def test_a_command_that_was_warned_requeues_its_own_task_and_no_other(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of an array's last task is that of the array: requeued by it, all tasks would be."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    slurm.requeue_if_warned(status)
    assert not (tmp_path / "asked").exists()
    for name, value in (("JOB_ID", "7"), ("ARRAY_JOB_ID", "7"), ("ARRAY_TASK_ID", "3"), ("PROCID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    slurm.requeue_if_warned(status)
    assert not (tmp_path / "asked").exists()
    monkeypatch.setenv("SLURM_PROCID", "0")
    slurm.requeue_if_warned(status)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 7_3\n" if status in (128 + signal.SIGUSR1, 128 + signal.SIGUSR2) else "")


def test_the_processes_of_a_step_meet_at_its_first_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scontrol").write_text(
        '#!/bin/sh\nif [ "$2" = hostnames ]; then echo "n1\nn2"; else echo "NodeName=$3 NodeAddr=10.0.0.${3#n}"; fi\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    given = {
        "JOB_ID": "7",
        "STEP_ID": "0",
        "STEP_NUM_TASKS": "1",
        "PROCID": "3",
        "LOCALID": "1",
        "STEP_NODELIST": "n[1-2]",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    made = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    for name in made:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    slurm.export_ranks()
    assert not set(made) & os.environ.keys()  # a step of one process
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    slurm.export_ranks()
    assert [os.environ[name] for name in made[:4]] == ["3", "4", "1", "10.0.0.1"]
    assert 20_000 <= int(os.environ["MASTER_PORT"]) < 32_000


def test_more_processes_than_tasks_of_a_meta_batch_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "nodes = 2\ncpus = 8")
    assert main([*RUN, "--meta-batch", "4", "--slurm", str(path)]) == 2
    assert "16 processes on its nodes share a meta-batch of 4 tasks" in capsys.readouterr().err


def test_flags_are_left_out_of_a_command_with_their_values() -> None:
    words = ["run", "--slurm", "a.toml", "--methods", "maml", "--slurm=b.toml", "--dry-run", "--seeds", "0"]
    assert without(words, valued=("--slurm",), flags=("--dry-run",)) == ("run", "--methods", "maml", "--seeds", "0")
