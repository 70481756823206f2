"""The main job, small: from flags to a table, the same numbers every time, whatever stops it in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import optimizers
from benchmark import data
from benchmark.cli import parser
from benchmark.data import nearest_centroid
from benchmark.runs import checkpoints, store
from benchmark.runs.assembly import load_trained
from optimizers.maml import GradientDescent
from tests.conftest import ROOT, Command

TINY_FLAGS = """
    --ways 3 --channels 4 --iterations 24 --meta-batch 2 --query-train 3 --query-test 3 --steps 2 --trace-steps 4
    --validate-every 8 --validation-tasks 6 --tasks 20 --workers 1
"""
TINY = TINY_FLAGS.split()


def _words(results: Path, methods: str, *more: str) -> list[str]:
    return ["run", "--methods", methods, *TINY, *more, "--results", str(results)]


def _run(results: Path, methods: str, *more: str) -> None:
    """In this process: a process of its own takes longer to start than such a run to train."""
    assert parser.main(_words(results, methods, *more)) == 0


def _only(results: Path, method: str) -> Path:
    (path,) = results.glob(f"*-{method}-controlled-*")
    return path


def _numbers(path: Path) -> dict[str, bytes]:
    """What must be equal bit by bit: tables, and learned meta-parameters."""
    found = {name: (path / name).read_bytes() for name in ("evaluation.csv", "training.csv", "validation.csv")}
    payload = checkpoints.read_checkpoint(path / "checkpoint.pt")
    for group in ("meta_parameters", "best"):
        found |= {f"{group}.{key}": value.numpy().tobytes() for key, value in payload[group].items()}
    return found


@pytest.fixture(scope="module")
def unbroken(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    results = tmp_path_factory.mktemp("unbroken")
    done = command(*_words(results, "md,metasgd"))
    assert done.returncode == 0, done.stderr
    return results, done.stdout


def test_run_ends_with_a_table_of_methods_and_baseline(unbroken: tuple[Path, str]) -> None:
    results, printed = unbroken
    assert "MetaSGD" in printed
    assert "nearest centroid" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    states = {run.spec["method"]: run.state for run in store.load_runs(results)}
    assert states == {"pixels": "finished", "md": "finished", "metasgd": "finished"}


def test_run_records_what_a_reader_needs(unbroken: tuple[Path, str]) -> None:
    run = store.load_run(_only(unbroken[0], "md"))
    assert run.command[:4] == ["python", "-m", "benchmark", "run"]
    assert {"torch", "python", "device", "commit", "workers", "threads"} <= run.environment.keys()
    assert run.evaluation is not None
    assert list(run.evaluation["task"]) == list(range(20))
    assert list(run.evaluation.filter(like="support_nll_")) == [f"support_nll_{k}" for k in range(5)]
    assert run.evaluation["accuracy"].between(0, 1).all()
    assert run.training is not None
    assert len(run.training) == 24
    assert run.validation is not None
    assert run.validation["iteration"].tolist() == [8, 16, 24]
    best = run.validation.loc[run.validation["accuracy"].idxmax()]  # idxmax: the first of equals
    assert run.status["best_iteration"] == best["iteration"]


def test_baseline_is_nearest_centroid_on_the_same_tasks(unbroken: tuple[Path, str]) -> None:
    run = store.load_run(_only(unbroken[0], "pixels"))
    batch = data.sample(data.Episodes(data.load("glyphs"), "test", 3, 1, 3, 0), range(20))
    assert run.evaluation is not None
    assert run.evaluation["accuracy"].to_numpy() == pytest.approx(nearest_centroid.evaluate(batch)[0].numpy())


def test_same_command_same_numbers_in_any_order_and_company(unbroken: tuple[Path, str], tmp_path: Path) -> None:
    _run(tmp_path, "metasgd")
    assert _numbers(_only(tmp_path, "metasgd")) == _numbers(_only(unbroken[0], "metasgd"))
    _run(tmp_path, "maml,md")
    assert _numbers(_only(tmp_path, "md")) == _numbers(_only(unbroken[0], "md"))


def test_done_is_skipped(unbroken: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    results, printed = unbroken
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.suffix in (".csv", ".pt", ".json")}
    _run(results, "md,metasgd")
    again = capsys.readouterr()
    assert "done already" in again.err
    assert again.out == printed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_measuring_otherwise_trains_nothing(
    unbroken: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    subprocess.run(["cp", "-r", unbroken[0], results], check=True)
    _run(results, "md", "--tasks", "30")
    assert "only measured again" in capsys.readouterr().err
    old, new = (store.load_run(path) for path in sorted(results.glob("*-md-*"), key=lambda p: p.stat().st_mtime))
    assert old.evaluation is not None
    assert new.evaluation is not None
    pd.testing.assert_frame_equal(new.evaluation.head(20), old.evaluation)
    assert new.status["best_iteration"] == old.status["best_iteration"]
    shutil.rmtree(old.path)
    learned = [load_trained(run).state_dict() for run in (new, store.load_run(_only(unbroken[0], "md")))]
    assert checkpoints.fingerprint(learned[0]) == checkpoints.fingerprint(learned[1]), "its checkpoint is its own"


def _start(results: Path, *more: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "tests.slowly", *_words(results, "md", *more)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(2400):
        if path.exists():
            return
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.025)
    raise AssertionError(f"{path} never came")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopped_run_goes_on_to_the_same_numbers(
    number: signal.Signals, unbroken: tuple[Path, str], tmp_path: Path
) -> None:
    process = _start(tmp_path)
    while not list(tmp_path.glob("*-md-*")):
        assert process.poll() is None
        time.sleep(0.02)
    path = _only(tmp_path, "md")
    _wait_for(path / "checkpoint.pt", process)
    process.send_signal(number)
    status = process.wait(timeout=20)
    if status == 0:
        pytest.fail("the run finished before it could be stopped: make its steps slower")
    if number != signal.SIGKILL:
        assert status == 128 + number
        assert store.load_run(path).state == "interrupted"
    assert store.load_run(path).state in ("running", "interrupted")
    _run(tmp_path, "md")
    assert _numbers(path) == _numbers(_only(unbroken[0], "md"))


def test_a_run_that_is_being_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = _start(tmp_path, "--iterations", "100000")
    try:
        while not list(tmp_path.glob("*-md-*/status.json")):
            assert process.poll() is None
            time.sleep(0.02)
        assert parser.main(_words(tmp_path, "md", "--iterations", "100000")) == 1
        assert "is being run by another process" in capsys.readouterr().err
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_divergence_is_a_result_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path, "maml,metasgd", "--alpha", "1e30", "--meta-lr", "1e30")
    for method in ("maml", "metasgd"):
        run = store.load_run(_only(tmp_path, method))
        assert run.state == "diverged"
        assert "not finite" in run.status["message"]
        assert run.evaluation is None
    assert "diverged" in capsys.readouterr().out


def test_resume_refuses_a_checkpoint_of_another_run(
    unbroken: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    subprocess.run(["cp", "-r", unbroken[0], results], check=True)
    md, metasgd = _only(results, "md"), _only(results, "metasgd")
    (md / "checkpoint.pt").write_bytes((metasgd / "checkpoint.pt").read_bytes())
    status = json.loads((md / "status.json").read_text()) | {"state": "interrupted"}
    (md / "status.json").write_text(json.dumps(status))
    assert parser.main(_words(results, "md")) == 1
    assert "belongs to another run" in capsys.readouterr().err
    assert torch.equal(  # and it is left as it was
        checkpoints.read_checkpoint(md / "checkpoint.pt")["losses"],
        checkpoints.read_checkpoint(metasgd / "checkpoint.pt")["losses"],
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_a_state_that_is_no_tensor_fails_with_one_line(
    recompute: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Counting(GradientDescent):
        def init_state(self, noise=None):
            return super().init_state(noise) | {"k": 0}

        def step(self, state, grads, k):
            return super().step(state, grads, k) | {"k": state["k"] + 1}

    optimizers.register("counting", Counting)
    try:
        assert parser.main(_words(tmp_path, "counting", *["--recompute"] * recompute)) == 1
    finally:
        optimizers.unregister("counting")
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (run,) = (run for run in store.load_runs(tmp_path) if run.spec["method"] == "counting")
    assert run.state == "failed"
    assert "state['k'] is int; every leaf of a method's state must be a tensor" in run.status["message"]
