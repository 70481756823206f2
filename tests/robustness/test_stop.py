"""A stop that is asked for where no step goes on: it is never forgotten, and has the status of its signal."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.cli import run as run_verb
from benchmark.cli.parser import main
from benchmark.engine import parallel, shutdown
from benchmark.engine.shutdown import Stop
from benchmark.runs import plan
from benchmark.runs.run import Context
from benchmark.runs.store import load_runs
from tests.robustness.helpers import TINY

SINE = "--dataset sine --network sine-mlp --ways 1 --shots 3 --channels 8 --iterations 9 --tasks 12 --device cpu"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_library_makes_of_the_exception_of_a_signal_does_not_matter(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is imported just then may take it for a missing part, and go on without."""
    carry_out = run_verb.main

    def imports_and_runs(arguments: Any) -> int:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
        return carry_out(arguments)

    monkeypatch.setattr(run_verb, "main", imports_and_runs)
    results = tmp_path / "results"
    with pytest.raises(SystemExit) as ending:
        main(["run", "--methods", "maml", *SINE.split(), "--results", str(results), "--workers", "1"])
    assert ending.value.code == 128 + number
    assert not results.exists()
    assert shutdown.asked() is None, "the next command in this process is not asked"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_stop_before_and_after_the_work_of_a_plan_is_heeded(
    place: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its processes listen, and when all have come to their end."""

    def asked(work: Callable[..., Any]) -> Callable[..., Any]:
        def work_and_be_asked(*arguments: Any, **how: Any) -> Any:
            if place == "before":
                os.kill(os.getpid(), signal.SIGTERM)
            found = work(*arguments, **how)
            if place == "after":
                os.kill(os.getpid(), signal.SIGTERM)
            return found

        return work_and_be_asked

    if place == "before":
        monkeypatch.setattr(parallel, "launch", asked(parallel.launch))
    elif workers == 2:
        monkeypatch.setattr(parallel._Workers, "_wait", asked(parallel._Workers._wait))
    else:
        monkeypatch.setattr(plan, "run_plan", asked(plan.run_plan))
    monkeypatch.setattr(shutdown, "DROP_AFTER_S", 60.0)
    context = Context(results=tmp_path, device="cpu", shared=True)
    with pytest.raises(SystemExit) as ending:
        plan.share_plan([TINY], context, workers=workers, device=torch.device("cpu"))
    assert ending.value.code == 128 + signal.SIGTERM
    assert [run.state for run in load_runs(tmp_path)] == ["finished"] * (place == "after")


def test_what_one_block_heard_those_around_it_know() -> None:
    with Stop().installed() as outer:
        with Stop().installed() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.signal == outer.signal == signal.SIGTERM
        assert outer.exit_status == 143
        with Stop().installed() as later:
            assert later
    assert not Stop()


def test_a_process_that_is_watched_over_has_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come from the scheduler and from the process that started it; that one ends it if it does not listen."""
    monkeypatch.setattr(shutdown._process, "watched", True)
    with Stop().installed() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.exit_status == 143
