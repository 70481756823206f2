"""A study: one file says what is wanted, one command does what is due, whatever stops it or works beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmark.cli.parser import main
from benchmark.errors import UserError
from benchmark.runs import costs, environment, plan, store, study
from benchmark.runs import run as runner
from benchmark.runs.directory import RunDirectory
from benchmark.spec import RunSpec
from tests.conftest import ROOT
from tests.report.builder import build_run
from tests.tiny_images import store_tiny

CPU = torch.device("cpu")

SHARED = """
dataset = "tiny"
methods = ["maml", "metasgd"]
ways = 3
channels = 4
steps = 1
trace_steps = 2
meta_batch = 1
query_train = 3
query_test = 3
validation_tasks = 4
"""
TUNING = """
[tuning]
trials = 2
iterations = 2
"""
STAGES = """
[[stage]]
name = "first"
recipe = "tuned"
seeds = [0, 1]
iterations = 2
tasks = 5

[[stage]]
name = "long"
folder = "long"
methods = ["maml"]
shots = [2]
iterations = 3
tasks = 5
"""
RUNS = 2 * 2 + 2 * 3 + 2
"""Trials, runs of the first stage with their baselines, and the long one with its own."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    store_tiny(root)
    return root


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies") / "tiny.toml"
    path.write_text(SHARED + TUNING + STAGES)
    return path


def _words(file: Path, root: Path, place: Path) -> list[str]:
    words = ["study", file, "--data-root", root, "--results", place / "results", "--reports", place / "reports"]
    return [*map(str, words), "--workers", "1"]


def _numbers(place: Path) -> dict[str, bytes]:
    """What must be equal bit by bit: all tables of all runs, and of the tuning."""
    results = place / "results"
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in results.rglob("*.csv")} | {
        "tuned.json": (results / "tuning" / "tuned.json").read_bytes()
    }


@pytest.fixture(scope="module")
def unbroken(file: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unbroken")
    assert main(_words(file, root, place)) == 0
    return place


def test_a_study_tunes_runs_and_reports(unbroken: Path) -> None:
    results, reports = unbroken / "results", unbroken / "reports"
    runs = [run for folder in store.results_folders(results) for run in store.load_runs(folder, tables=True)]
    assert {run.state for run in runs} == {"finished"}
    assert len(runs) == RUNS
    assert sum(run.spec["recipe"] == "tuned" and bool(run.tuning) for run in runs) == 4
    assert {run.path.parent.name for run in runs if run.spec["iterations"] == 3} == {"long"}
    assert all(not run.spec["tasks"] for run in store.load_runs(results / "tuning"))
    assert "| MAML | 1 | 1-shot | 2 | 2 |" in (reports / "tuning.md").read_text()
    assert '<section aria-labelledby="tuning">' in (reports / "index.html").read_text()
    assert "2-shot" in (reports / "long" / "table1.md").read_text()
    assert "2-shot" not in (reports / "table1.md").read_text()


def test_again_does_nothing(unbroken: Path, file: Path, root: Path, capfd: pytest.CaptureFixture) -> None:
    def files() -> dict[Path, int]:
        paths = (path for part in ("results", "reports") for path in (unbroken / part).rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in paths if not path.name.endswith(".lock")}

    before = files()
    assert main(_words(file, root, unbroken)) == 0
    assert files() == before
    captured = capfd.readouterr()
    assert " train " not in captured.err
    assert f"all {RUNS} runs done" in captured.err
    assert ": done" in captured.out


def test_dry_run_says_what_is_due_and_writes_nothing(
    unbroken: Path, file: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main([*_words(file, root, tmp_path), "--dry-run"]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capfd.readouterr().out.splitlines() if line.split()}
    assert lines["tuning"][:5] == ["4", "0", "0", "0", "4"]
    assert lines["first"][:5] == ["6", "0", "0", "0", "6"]
    assert lines["long"][:5] == ["2", "0", "0", "0", "2"]
    assert list(tmp_path.iterdir()) == []


def _short_report(results: Path, reports: Path) -> None:
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "index.html").write_text(str(results))


def _start(words: list[str]) -> subprocess.Popen:
    line = [sys.executable, "-m", "benchmark", *words]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_killed_anywhere_it_goes_on_to_the_same_numbers(
    unbroken: Path, file: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sign in ("results/tuning/*-metasgd-*/validation.csv", "results/*-metasgd-*/checkpoint.pt"):
        process = _start(_words(file, root, tmp_path))
        while not list(tmp_path.glob(sign)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "reports" / "long" / "index.html").exists()
    monkeypatch.setattr("benchmark.report.write", _short_report)  # another test has the whole one
    assert main(_words(file, root, tmp_path)) == 0
    assert _numbers(tmp_path) == _numbers(unbroken)


def test_two_processes_share_a_folder_and_do_no_run_twice(
    unbroken: Path, file: Path, root: Path, tmp_path: Path
) -> None:
    both = [_start(_words(file, root, tmp_path)) for _ in range(2)]
    try:
        said = [process.communicate(timeout=120)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said

    def done(work: str) -> list[str]:  # of one run there are several lines where it takes its time
        return [label for text in said for label in set(re.findall(rf"^(.*) {work} \d+/", text, re.MULTILINE))]

    trained, tested = done("train"), done("test")
    baselines = 3
    assert len(trained) == RUNS - baselines, said
    assert len(tested) == RUNS - 4, said
    assert _numbers(tmp_path) == _numbers(unbroken)


def test_a_held_run_is_left_and_come_back_to(root: Path, tmp_path: Path) -> None:
    shared = {"ways": 3, "channels": 4, "steps": 1, "meta_batch": 1, "query_train": 2, "query_test": 2}
    shared |= {"iterations": 1, "tasks": 3, "validation_tasks": 3, "eval_steps": 1, "trace_steps": 1}
    specs = [RunSpec(dataset="tiny", seed=seed, **shared) for seed in (0, 1)]
    context = runner.Context(results=tmp_path, data_root=root, device="cpu", shared=True)
    order = []

    def hold() -> None:
        with RunDirectory(tmp_path, specs[0]).claim({}, []):
            held.set()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (tmp_path / specs[1].name / "evaluation.csv").exists():
                time.sleep(0.01)
            order.append((tmp_path / specs[0].name / "evaluation.csv").exists())

    held = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    states = plan.share_plan(specs, context, workers=1, device=torch.device("cpu"))
    holder.join()
    assert order == [False]
    assert states == {spec.name: "finished" for spec in specs}


def test_seeds_are_outermost(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(SHARED + '[[stage]]\nname = "a"\nshots = [1, 5]\nseeds = [0, 1]\niterations = 7\nchannels = 8\n')
    specs = study.read(path).stages[0].specs()
    assert [(spec.seed, spec.shots, spec.method) for spec in specs] == [
        (seed, shots, method) for seed in (0, 1) for shots in (1, 5) for method in ("pixels", "maml", "metasgd")
    ]
    assert {(spec.iterations, spec.channels, spec.meta_batch) for spec in specs if spec.method != "pixels"} == {
        (7, 8, 1)
    }


STAGE = '[[stage]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = ", "not valid TOML"),
        ("", "has no [[stage]] table"),
        ("[stage]\nname = 'a'", "has no [[stage]] table"),
        ("datset = 'glyphs'\n" + STAGE, "unknown key 'datset' (did you mean 'dataset'?)"),
        (STAGE + "shot = [1]", "stage 'a': unknown key 'shot' (did you mean 'shots'?)"),
        ("[[stage]]\nshots = [1]", "stage 1 has no name"),
        (STAGE + "[[stage]]\nname = 'a'", "two stages have the name 'a'"),
        (STAGE + "shots = 1", "stage 'a': shots must be a list of whole numbers"),
        (STAGE + "seeds = [-1]", "stage 'a': seeds must be whole numbers from 0 on"),
        (STAGE + "methods = ['mamle']", "stage 'a': unknown"),
        (STAGE + "recipe = 'tund'", "recipe 'tund' (did you mean 'tuned'?)"),
        (STAGE + "recipe = 'tuned'", "no [tuning] table"),
        (STAGE + "iterations = 1.5", "stage 'a': iterations must be int"),
        (STAGE + "tasks = 0", "stage 'a': tasks must be at least 1"),
        (STAGE + "folder = '../x'", "folder '../x' must be a plain name"),
        (STAGE + TUNING, "no stage of the recipe tuned"),
        (STAGE + "recipe = 'tuned'\nalpha = 0.1" + TUNING, "alpha is what is tuned"),
        (STAGE + "recipe = 'tuned'\nways = 3" + TUNING, "has ways 3, but 5 is tuned"),
        (STAGE + "recipe = 'tuned'\nnorm = 'support'" + TUNING, "has norm support, but batch is tuned"),
        (STAGE + "recipe = 'tuned'" + TUNING + "trails = 3", "[tuning]: unknown key 'trails' (did you mean 'trials'?)"),
        (STAGE + "recipe = 'tuned'\n[tuning]\ntrials = 0", "[tuning]: trials must be a whole number from 1 on"),
    ],
)
def test_a_wrong_file_gets_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        study.read(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_stage_that_cannot_run_is_refused_before_any_trial(root: Path, tmp_path: Path) -> None:
    """The trials of the same method, data and shots are in order, and must not hide it."""
    path = tmp_path / "study.toml"
    path.write_text(SHARED + TUNING + STAGES.replace('recipe = "tuned"', 'recipe = "tuned"\nnetwork = "sine-mlp"', 1))
    assert main(_words(path, root, tmp_path)) == 2
    assert not list(tmp_path.glob("results/**/spec.json"))


def test_a_regression_has_no_baseline(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('dataset = "sine"\nmethods = ["maml"]\n[[stage]]\nname = "a"\niterations = 2\n')
    assert [spec.method for spec in study.read(path).stages[0].specs()] == ["maml"]


def test_the_study_of_the_project_can_be_read() -> None:
    found = study.read(ROOT / "studies" / "cifar-fs.toml")
    assert [(stage.name, stage.recipe) for stage in found.stages] == [
        ("one-shot", "tuned"),
        ("five-shot", "tuned"),
        ("glyphs", "controlled"),
        ("long", "tuned"),
    ]
    assert found.search is not None
    assert (found.search.trials, found.search.iterations, found.search.shots, len(found.methods)) == (8, 500, 1, 10)
    counts = [sum(spec.method != "pixels" for spec in stage.specs()) for stage in found.stages]
    assert counts == [30, 30, 30, 1]
    long = found.stages[-1].specs()[-1]
    assert (long.method, long.iterations, long.validate_every, long.recipe) == ("maml", 60_000, 2_000, "tuned")
    assert (long.channels, long.steps, long.meta_batch, long.query_train) == (32, 5, 4, 15)


def test_time_left_comes_from_what_runs_took(tmp_path: Path) -> None:
    knobs = {"iterations": 200, "validate_every": 100, "validation_tasks": 50, "tasks": 40, "meta_batch": 4}
    build_run(tmp_path, "maml", status={"iteration": 50, "wall_s": {"train": 100.0}}, state="interrupted", **knobs)
    known = costs.Costs([tmp_path], workers=1, device=CPU)
    spec = RunSpec(method="maml", seed=5, **knobs)
    assert known.of_step(spec) == 2.0
    tasks = costs.VALIDATION_SHARE * 2 * 50 + costs.TEST_SHARE * 40
    assert known.left(spec, None) == pytest.approx(2.0 * (200 + tasks / 4))
    half = costs.VALIDATION_SHARE * 50 + costs.TEST_SHARE * 40
    assert known.left(spec, {"iteration": 150}) == pytest.approx(2.0 * (50 + half / 4))
    assert known.left(RunSpec(method="pixels", iterations=0), None) == 0.0


def test_runs_on_this_kind_of_device_say_how_long_another_takes(tmp_path: Path) -> None:
    here = environment.described(CPU)
    walls = [("cpu (slow)", 100.0, 1), ("cpu (slow)", 110.0, 1), ("cpu (slow)", 90.0, 1), (here, 20.0, 2)]
    for seed, (device, wall, workers) in enumerate(walls):
        status = {"iteration": 10, "wall_s": {"train": wall}}
        build_run(tmp_path, seed=seed, status=status, environment={"device": device, "workers": workers})
    spec = RunSpec(method="maml", seed=5)
    build_run(tmp_path, "md", status=status, environment={"device": "cuda (fast)"})
    rates = costs.Costs([tmp_path], workers=1, device=CPU)
    assert rates._examples == [RunSpec(method="maml", seed=3, tasks=200)], "nor is the speed of another kind taken"
    assert costs.Costs([tmp_path], workers=1, device=CPU).of_step(spec) == 2.0 * 2
    assert costs.Costs([tmp_path], workers=4, device=CPU).of_step(spec) == 2.0 * 2 / 4


def test_work_not_met_yet_is_counted_in_operations(root: Path, tmp_path: Path) -> None:
    one = RunSpec(method="maml", dataset="tiny", ways=3, channels=4, query_train=3, steps=1, meta_batch=2)
    unknown = costs.Costs([], workers=2, device=CPU, data_root=root)
    by_hand = unknown.of_step(one) * costs.FLOPS * 2 / one.meta_batch
    pixels, shots, queries = [256, 64, 16, 4], 3, 9
    forward = sum(2 * 9 * (4 if i else 1) * 4 * size for i, size in enumerate(pixels)) + 2 * 4 * 3  # of one image
    assert by_hand > 3 * forward * (shots + queries)  # forward and backward, and through the backward of the support
    assert by_hand < 9 * forward * (shots + queries)


def test_a_run_on_images_that_are_not_here_is_no_example(root: Path, tmp_path: Path) -> None:
    elsewhere = {"iteration": 50, "wall_s": {"train": 100.0}}
    build_run(tmp_path, "maml", dataset="on-another-machine", status=elsewhere)
    spec = RunSpec(method="maml", dataset="tiny", ways=3, channels=4, query_train=3, steps=1, meta_batch=2)
    beside = costs.Costs([tmp_path], workers=2, device=CPU, data_root=root)
    assert beside.of_step(spec) == costs.Costs([], workers=2, device=CPU, data_root=root).of_step(spec)
