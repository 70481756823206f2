"""The long ones: a real process killed again and again at random moments, and a real worker that runs out of memory."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.runs import store
from benchmark.spec import RunSpec
from tests.conftest import ROOT
from tests.robustness.helpers import execute, numbers

pytestmark = pytest.mark.long

FLAGS = """
    --methods md --dataset glyphs --ways 3 --channels 4 --iterations 150 --meta-batch 2 --query-train 3 --query-test 3
    --steps 2 --validate-every 10 --validation-tasks 8 --tasks 200 --device cpu
"""


KILLS = 10


def _written(results: Path) -> dict[Path, int]:
    """How far each run came: the sizes of its training curve and its partial measurement."""
    found = {}
    for path in (*results.glob("*/training.csv"), *results.glob("*/*.partial.csv")):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_size
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_until_it_is_done(workers: int, tmp_path: Path) -> None:
    """SIGKILL a little later each time, at random, until the command gets through; then every number is as unbroken."""
    results, chance = tmp_path / "results", random.Random(workers)
    line = [sys.executable, "-m", "benchmark", "run", *FLAGS.split(), "--workers", str(workers)]
    environment = {"OMP_NUM_THREADS": "1"}
    results.mkdir()
    kills, reached = 0, []
    while True:
        process = subprocess.Popen(
            [*line, "--results", str(results)], cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        before = _written(results)
        while process.poll() is None and _written(results) == before and chance.random() > 0.0001:
            time.sleep(0.005)  # mostly until the next checkpoint, or nothing would move on
        time.sleep(chance.uniform(0, 0.5))
        if process.poll() is not None or kills == KILLS:
            break
        process.kill()
        process.communicate()
        kills += 1
        reached += [
            run.status["iteration"] for run in store.load_runs(results, tables=True) if run.status.get("iteration")
        ]
    _, shown = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    assert kills >= 5
    print(f"{workers} workers: killed {kills} times, last seen at iterations {reached}")
    for run in store.load_runs(results, tables=True):
        assert run.state == "finished"
        if run.spec["method"] == "md":
            spec = RunSpec.from_dict(run.spec)
            execute(tmp_path / "unbroken", spec)
            assert numbers(run.path) == numbers(tmp_path / "unbroken" / spec.name)


FAILS_IN_ONE = """
import sys
from pathlib import Path
import optimizers, torch
from benchmark.runs import plan as plans
from benchmark.runs import run as runner
from optimizers.maml import GradientDescent
from tests.robustness.helpers import tiny

class Hungry(GradientDescent):
    def objective(self, task, trajectory):
        if torch.distributed.get_rank() == 1:
            torch.empty(2**60, dtype=torch.uint8)
        return super().objective(task, trajectory)

optimizers.register("hungry", Hungry)
if __name__ == "__main__":
    context = runner.Context(results=Path(sys.argv[1]), device="cpu")
    specs = [tiny(), tiny(method="hungry"), tiny(seed=1)]
    print(plans.launch_plan(specs, context, workers=2, device=torch.device("cpu")).values())
"""


def test_one_worker_out_of_memory_ends_its_run_alone(tmp_path: Path, unbroken: Path) -> None:
    script = tmp_path / "hungry.py"
    script.write_text(FAILS_IN_ONE)

    done = subprocess.run(
        [sys.executable, script, str(tmp_path / "results")], cwd=ROOT, check=True, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "['finished', 'oom', 'finished']" in done.stdout
    assert "hungry" in done.stderr
    assert "--meta-batch" in done.stderr
    states = {run.spec["method"]: run for run in store.load_runs(tmp_path / "results")}
    assert states["hungry"].state == "oom"
    assert "DefaultCPUAllocator" in states["hungry"].status["message"]
    assert numbers(tmp_path / "results" / unbroken.name) == numbers(unbroken)
