"""Killed anywhere, the same command goes on to the same numbers; asked to stop, it stops soon and says so."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import evaluate, train
from benchmark.cli.parser import main
from benchmark.engine import parallel, shutdown
from benchmark.engine.group import Group
from benchmark.engine.shutdown import Interrupted, Stop
from benchmark.runs import plan, stages, store
from benchmark.runs.directory import is_alive
from benchmark.runs.run import Context
from benchmark.spec import RunSpec
from tests.conftest import ROOT
from tests.robustness.helpers import GLYPHS, TINY, execute, numbers, state


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the code does on its way out has an effect."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``kill("fsync", 3)`` dies at the third call of ``os.fsync``; ``kill()`` brings back to life."""
    real = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}
    dead = False

    def arm(name: str = "", nth: int = 0) -> None:
        nonlocal dead
        dead, calls = False, 0

        def wrapped(which: str) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal dead, calls
                if dead:  # what cleans up does not run either
                    return None
                if which == name:
                    calls += 1
                    if calls == nth:
                        dead = True
                        raise Killed
                return real[which](*arguments, **options)

            return call

        for each in real:
            monkeypatch.setattr(os, each, wrapped(each))

    yield arm
    arm()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_at_any_write_it_goes_on_to_the_same_numbers(
    call: str, kill: Any, unbroken: Path, tmp_path: Path
) -> None:
    """``fsync``: in mid-write. ``replace``: between write and rename, and between the two renames of a checkpoint."""
    expected, deaths = numbers(unbroken), 0
    for nth in range(1, 100):
        kill(call, nth)
        results = tmp_path / str(nth)
        try:
            execute(results)
        except Killed:
            deaths += 1
        else:
            break
        if nth % 3 == 0:  # and once more, a little later
            kill(call, 4)
            with pytest.raises(Killed):
                execute(results)
        kill()
        store.load_runs(results, tables=True)  # a reader finds nothing torn
        assert execute(results) == "finished"
        assert numbers(results / TINY.name) == expected
        assert not list((results / TINY.name).glob(".*")), "left half written"
        shutil.rmtree(results)
    assert deaths > 15


class StopAt(Stop):
    """Asked to stop at the n-th time it is looked at."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.left = nth

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_stopped_anywhere_it_goes_on_to_the_same_numbers(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any meta-step, inside a meta-validation, and while measuring."""
    monkeypatch.setattr(evaluate, "CHUNK", 3)
    expected, messages = numbers(unbroken), set()
    for nth in range(100):
        results = tmp_path / str(nth)
        try:
            execute(results, stop=StopAt(nth))
        except Interrupted as stopped:
            messages.add(str(stopped).partition(" iteration")[0])
        else:
            break
        assert state(results) == "interrupted"
        assert execute(results) == "finished"
        assert numbers(results / TINY.name) == expected
        shutil.rmtree(results)
    assert messages == {
        "interrupted at",
        "interrupted in the meta-validation after",
        "interrupted while measuring",
    }


def test_the_seconds_of_a_measurement_are_those_of_all_its_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "CHUNK", 3)
    for nth in itertools.count():  # until it is the measurement that is stopped
        with pytest.raises(Interrupted) as stopped:
            execute(tmp_path / str(nth), stop=StopAt(nth))
        if "while measuring" in str(stopped.value):
            break
    file = tmp_path / str(nth) / TINY.name / "status.json"
    status = json.loads(file.read_text())
    assert status["wall_s"]["evaluate"] < 100
    file.write_text(json.dumps(status | {"wall_s": status["wall_s"] | {"evaluate": 100.0}}))
    assert execute(tmp_path / str(nth)) == "finished"
    assert json.loads(file.read_text())["wall_s"]["evaluate"] >= 100


SLOW = """
import sys, time
from pathlib import Path
import optimizers
from benchmark.engine import shutdown
from optimizers.maml import GradientDescent
from tests.robustness.helpers import execute_all, tiny

class Slow(GradientDescent):
    def objective(self, task, trajectory):
        print("step", flush=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.01)
        return super().objective(task, trajectory)

optimizers.register("slow", Slow)
shutdown.DROP_AFTER_S = float(sys.argv[2])
execute_all(Path(sys.argv[1]), tiny(method="slow"))
"""


def test_how_long_a_step_and_a_worker_may_take_to_end() -> None:
    """What docs/robustness.md says; the tests below shorten or lengthen both."""
    assert (shutdown.DROP_AFTER_S, parallel.STOP_S) == (7.0, 9.0)


@pytest.mark.parametrize(("number", "drop_after_s", "signals"), [(signal.SIGTERM, 0.5, 1), (signal.SIGINT, 60.0, 2)])
def test_a_slow_step_is_dropped_and_a_second_signal_ends_at_once(
    number: signal.Signals, drop_after_s: float, signals: int, tmp_path: Path
) -> None:
    line = [sys.executable, "-c", SLOW, str(tmp_path), str(drop_after_s)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"step\n"
        asked = time.monotonic()
        process.send_signal(number)
        while signals == 2 and process.poll() is None and time.monotonic() - asked < 10:
            time.sleep(0.2)  # and again, for two that come before it has a core become one
            process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
        assert time.monotonic() - asked < 10
    run = store.load_run(next(tmp_path.glob("*-slow-*")))
    assert run.state == ("interrupted" if signals == 1 else "running")  # at once: with no time to write
    assert not is_alive(run.path)


FLAGS = """
    --methods metasgd --dataset sine --network sine-mlp --ways 1 --shots 3 --channels 8 --iterations 400 --meta-batch 3
    --query-train 3 --query-test 3 --steps 1 --validate-every 50 --validation-tasks 17 --tasks 12 --device cpu
"""


def test_with_workers_stopped_killed_and_whatever_their_number_the_same_numbers(tmp_path: Path) -> None:
    """SIGTERM with two workers, then SIGKILL with two, then the rest in one process: as if unbroken in one.

    Of 17 validation tasks the second worker has one less, and none of the last chunk.
    """
    results, environment = tmp_path / "results", {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "tests.slowly", "run", *FLAGS.split(), "--results", str(results)]

    def start(workers: int) -> subprocess.Popen:
        return subprocess.Popen(
            [*line, "--workers", str(workers)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def until(process: subprocess.Popen, iteration: int) -> Path:
        """Wait for a checkpoint of at least this iteration."""
        for _ in range(6000):
            for path in results.glob("*/status.json"):
                if store.load_run(path.parent).status.get("iteration", 0) >= iteration:
                    return path.parent
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        raise AssertionError("never came so far")

    with start(2) as process:
        path = until(process, 50)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
        assert time.monotonic() - asked < 10
    run = store.load_run(path)
    assert run.state == "interrupted"
    reached = run.status["iteration"]
    assert 50 <= reached < 350, "too slow to stop it in time"
    with start(2) as process:
        until(process, 50 * (reached // 50 + 1))
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.read()  # to its end: no worker lives
    assert store.load_run(path).state == "running"
    assert main([*line[3:], "--workers", "1"]) == 0
    spec = RunSpec.from_dict(run.spec)
    assert execute(tmp_path / "unbroken", spec) == "finished"
    assert numbers(path) == numbers(tmp_path / "unbroken" / spec.name)


DEAF = """
import os, signal, sys, time
from benchmark.engine import parallel

def deaf(group):  # os.write: one line is one write, whatever buffers the interpreter was told to use
    signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"asked\\n"))
    os.write(1, b"ready\\n")
    while True:
        time.sleep(0.05)

if __name__ == "__main__":
    parallel.STOP_S = float(sys.argv[1])
    parallel.launch(deaf, (), workers=2)
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_workers_that_do_not_listen_are_ended(tmp_path: Path, signals: int) -> None:
    """After a while, or by a second signal at once."""
    script = tmp_path / "deaf.py"
    script.write_text(DEAF.lstrip())
    command = [sys.executable, str(script), "5" if signals == 1 else "1000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        process.send_signal(signal.SIGTERM)
        assert [process.stdout.readline() for _ in range(2)] == ["asked\n"] * 2
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
        assert process.stdout.read() == "", "a worker lives"  # its end of the pipe is closed when it ends
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()  # of a test that failed: it would wait for ever
        process.communicate()


def signalled(group: Group, specs: list[RunSpec], results: Path, rank: int, place: str) -> dict[str, str]:
    """A plan in which `rank` alone gets SIGUSR1: in a step that is dropped, in the baseline, or at the end of a run."""

    def then(work: Callable[..., Any], after_s: float) -> Callable[..., Any]:
        def signal_and_work(*arguments: Any, **how: Any) -> Any:
            if group.rank == rank:
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(after_s)
            return work(*arguments, **how)

        return signal_and_work

    shutdown.DROP_AFTER_S = 0.3
    if place == "step":
        train._meta_step = then(train._meta_step, 2.0)
    elif place == "baseline":
        stages.measure_baseline = then(stages.measure_baseline, 0.0)
    else:
        stages._finish = then(stages._finish, 0.0)
    return plan.run_plan(group, specs, Context(results=results, device="cpu"))


@pytest.mark.parametrize(("place", "rank"), [("step", 1), ("baseline", 0), ("end", 0)])
def test_where_one_process_alone_is_asked_the_whole_plan_stops(place: str, rank: int, tmp_path: Path) -> None:
    specs = [GLYPHS, dataclasses.replace(GLYPHS, method="metasgd")]
    if place == "baseline":
        specs.insert(0, dataclasses.replace(GLYPHS, method="pixels"))
    with pytest.raises(SystemExit) as ending:
        parallel.launch(signalled, (specs, tmp_path, rank, place), workers=2)
    assert ending.value.code == 128 + signal.SIGUSR1
    assert not (tmp_path / specs[-1].name).exists(), "no further run is begun"
