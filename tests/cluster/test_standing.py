"""What ``status`` says of runs in a queue, at work, lost and failed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.cli import parser
from benchmark.cli import status as status_verb
from benchmark.runs import owner, store
from benchmark.runs.standing import survey
from benchmark.runs.store import Run
from benchmark.screen import Screen
from tests.cluster.test_owner import claim_of
from tests.report.builder import build_run

NEW = "glyphs-5way-1shot-md-controlled-seed7-00000000"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Array 6 is to take four runs: one finished, one at work as job 7, one interrupted, one not begun."""
    folder = tmp_path / "results"
    runs = [
        build_run(folder),
        build_run(folder, "md", state="running", status={"iteration": 500, "wall_s": {"train": 100.0}}),
        build_run(folder, "mtnet", state="interrupted", status={"iteration": 20, "message": "interrupted at 20"}),
    ]
    (runs[1].path / owner.LOCK).touch()
    claim_of(runs[1].path, job="7", label="6_1")
    (folder / "slurm").mkdir()
    document = {"job": "6", "runs": [*(run.name for run in runs), NEW]}
    (folder / "slurm" / "6.json").write_text(json.dumps(document))
    return folder


def states(results: Path) -> list[tuple[str, str]]:
    return sorted((each.path.split("-")[3], each.state) for each in survey(results).runs)


def test_while_the_job_is_there_its_runs_are_queued_or_at_work(results: Path, squeue: Callable[..., None]) -> None:
    squeue("RUNNING|0", "PENDING|1")
    assert states(results) == [("maml", "finished"), ("md", "queued"), ("md", "running"), ("mtnet", "queued")]
    found = survey(results)
    assert found.busy
    (running,) = (each for each in found.runs if each.state == "running")
    assert (running.where, running.per_s) == ("far, job 6_1", 5.0)
    assert found.jobs == ["job 6: 1 running on n1, 1 pending"]


def test_once_it_is_over_what_it_left_is_killed_interrupted_or_not_there(
    results: Path, squeue: Callable[..., None]
) -> None:
    squeue("")
    claim_of(next(results.glob("*-md-*")), owner.QUIET_S + 20, job="7", label="6_1")
    (results / "slurm" / "6_0_0_log.out").write_text("submitit INFO - Job completed successfully\n")
    (results / "slurm" / "6_0_0_result.pkl").touch()
    (results / "slurm" / "61_0_0_log.out").write_text("another job's error\n")
    (results / "slurm" / "6_1_0_log.out").write_text("Traceback\nslurmstepd: error: Detected 1 oom_kill event\n\n")
    assert states(results) == [("maml", "finished"), ("md", "killed"), ("mtnet", "interrupted")]
    found = survey(results)
    assert not found.busy
    assert found.jobs == ["job 6_1 failed: slurmstepd: error: Detected 1 oom_kill event"]


def test_a_run_that_ends_while_the_folder_is_read_was_not_killed(
    results: Path, squeue: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue("")
    read = store.load_runs

    def read_while_it_ends(*arguments: Any, **how: Any) -> list[Run]:
        runs = read(*arguments, **how)
        shutil.rmtree(next(results.glob("*-md-*")))
        build_run(results, "md")
        return runs

    monkeypatch.setattr(store, "load_runs", read_while_it_ends)
    assert ("md", "finished") in states(results)


def test_a_job_that_runs_again_after_its_node_died_has_its_run_queued(
    results: Path, squeue: Callable[..., None]
) -> None:
    squeue("RUNNING|1")
    assert ("md", "silent") in states(results)
    claim_of(next(results.glob("*-md-*")), owner.QUIET_S + 20, job="7", label="6_1")
    assert [state for method, state in states(results) if method == "md"] == ["queued", "queued"]


def test_a_scheduler_that_does_not_answer_is_said(results: Path, squeue: Callable[..., None]) -> None:
    found = survey(results)
    assert found.jobs == ["job 6: squeue does not answer"]
    assert [(each.path, each.where) for each in found.runs if each.state == "not begun"] == [(NEW, "job 6")]
    assert found.busy, "what waits in a queue that does not answer may still begin"
    (results / "slurm" / "7.json").write_text("{")
    assert len(survey(results).refused) == 1


def test_watch_ends_when_nothing_runs_or_waits(
    results: Path,
    squeue: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    squeue("RUNNING|0")
    (results / "slurm" / "7.json").write_text("{")
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            squeue("")
            claim_of(next(results.glob("*-md-*")), owner.QUIET_S + 20, job="7", label="6_1")

    console = Screen(file=io.StringIO(), width=200)
    monkeypatch.setattr(status_verb, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(status_verb, "output", lambda: console)
    assert parser.main(["status", "--results", str(results), "--watch"]) == 0
    assert looks == [status_verb.WATCH_S] * 2
    assert capsys.readouterr().err.count("left out: ") == 3  # one for each look
    shown = console.file.getvalue()
    assert shown.count("far, job 6_1") == 2
    assert "1 finished, 1 interrupted, 1 killed" in shown
