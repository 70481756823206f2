"""Many at once: nothing is lost or mixed, and a reader never sees a torn file."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmark.engine import shutdown
from benchmark.errors import UserError
from benchmark.runs import owner, plan
from benchmark.runs.directory import RunDirectory, is_alive
from benchmark.runs.run import Context
from benchmark.runs.store import load_runs
from benchmark.spec import RunSpec
from benchmark.verify.derivatives import Record
from benchmark.verify.geometry import Geometry
from benchmark.verify.methods import write_geometry
from tests.robustness.helpers import GLYPHS, TINY, execute, execute_all, numbers, state, tiny


def _run(results: Path, specs: list[RunSpec], barrier: object) -> None:
    torch.set_num_threads(1)
    barrier.wait(300)  # type: ignore[attr-defined]
    states = execute_all(results, *specs)
    raise SystemExit(0 if set(states.values()) == {"finished"} else 1)


@pytest.mark.parametrize("count", [4, pytest.param(16, marks=pytest.mark.long)])
def test_many_launches_at_once_into_one_folder(count: int, tmp_path: Path) -> None:
    """Processes that start in one instant, each with a run of its own and the baseline that all of them want."""
    context = multiprocessing.get_context("forkserver")  # its server imports once, every process is a copy of it
    context.set_forkserver_preload(["tests.robustness.helpers"])
    baseline = RunSpec(**{**GLYPHS.to_dict(), "method": "pixels"})
    specs = [tiny(method=method, seed=seed) for method in ("maml", "metasgd") for seed in range(count // 2)]
    barrier = context.Barrier(count)
    processes = [context.Process(target=_run, args=(tmp_path, [baseline, spec], barrier)) for spec in specs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * count
    assert {run.name: run.state for run in load_runs(tmp_path, tables=True)} == {
        spec.name: "finished" for spec in (baseline, *specs)
    }
    for spec in specs[::3]:
        execute(tmp_path / "alone", spec)
        assert numbers(tmp_path / spec.name) == numbers(tmp_path / "alone" / spec.name)


def _measure(path: Path, name: str, barrier: object) -> None:
    record = Record(name, "trained", True, "", geometry=Geometry(1.0, 1.0, 0.0, 0.0, 1.0), cosine=1.0)
    barrier.wait(300)  # type: ignore[attr-defined]
    for number in range(30):
        write_geometry([dataclasses.replace(record, run=f"{name}-{number}")], path)


def test_two_processes_that_add_to_one_table_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.robustness.helpers"])
    path, barrier = tmp_path / "deep" / "geometry.csv", context.Barrier(2)
    processes = [context.Process(target=_measure, args=(path, name, barrier)) for name in ("md", "maml")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    rows = pd.read_csv(path)
    assert sorted(rows["run"]) == sorted(f"{name}-{number}" for name in ("md", "maml") for number in range(30))
    assert (rows["least"] == 1).all()


def test_the_same_run_twice_one_works_and_the_other_says_so(unbroken: Path, tmp_path: Path) -> None:
    with RunDirectory(tmp_path, TINY).claim({}, []):
        assert is_alive(tmp_path / TINY.name)
        before = (tmp_path / TINY.name / "spec.json").read_bytes()
        with pytest.raises(UserError, match="is being run by another process"):
            execute(tmp_path)
        assert (tmp_path / TINY.name / "spec.json").read_bytes() == before
        assert not (tmp_path / TINY.name / "status.json").exists()
    assert not is_alive(tmp_path / TINY.name)
    assert execute(tmp_path) == "finished"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)


def test_who_waited_for_a_run_that_was_finished_meanwhile_does_not_repeat_it(tmp_path: Path) -> None:
    baseline = RunSpec(**{**GLYPHS.to_dict(), "method": "pixels"})
    directory, waited = RunDirectory(tmp_path, baseline), []

    def wait() -> None:
        waited.append(execute(tmp_path, baseline))

    execute(tmp_path / "other", baseline)
    with directory.claim({}, []):
        second = threading.Thread(target=wait)
        second.start()
        time.sleep(0.3)
        for name in ("spec.json", "status.json", "evaluation.csv"):
            (directory.path / name).write_bytes((tmp_path / "other" / baseline.name / name).read_bytes())
        before = (directory.path / "evaluation.csv").stat().st_mtime_ns
    second.join(20)
    assert waited == ["finished"]
    assert (directory.path / "evaluation.csv").stat().st_mtime_ns == before


def test_a_stop_while_it_is_asked_about_the_runs_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler may take 20 s to say whether a job lives."""

    def slow(path: Path) -> tuple[str, str]:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(30)
        raise AssertionError("not interrupted")

    monkeypatch.setattr(shutdown, "DROP_AFTER_S", 0.2)
    monkeypatch.setattr(owner, "standing", slow)
    monkeypatch.setattr(plan, "launch_plan", lambda specs, *_, **__: {spec.name: "held" for spec in specs})
    with pytest.raises(SystemExit) as ending:
        plan.share_plan([TINY], Context(results=tmp_path, shared=True), workers=1, device=torch.device("cpu"))
    assert ending.value.code == 128 + signal.SIGUSR1


def test_a_reader_during_writing_sees_whole_files(tmp_path: Path) -> None:
    """Every table of every run is read again and again while runs begin, go on and end."""
    specs = [tiny(seed=seed, tasks=60) for seed in range(6)]
    execute(tmp_path, specs[0])
    done, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        while not done.is_set():
            try:
                seen.update((run.name, run.state) for run in load_runs(tmp_path, tables=True))
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for spec in specs[1:]:
            execute(tmp_path, spec)
    finally:
        done.set()
        reader.join()
    assert not wrong
    assert {name for name, _ in seen} == {spec.name for spec in specs}
    assert {state(tmp_path, spec) for spec in specs} == {"finished"}
    assert "running" in {each for _, each in seen}
