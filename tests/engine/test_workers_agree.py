"""Any number of workers gives the numbers of one, in float64, for every method and network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmark.engine.group import Group
from benchmark.engine.parallel import WorkerDied, launch
from tests.engine import work
from tests.engine.helpers import assert_same_gradient

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone():
    return work.everything(Group())


def assert_same(found, alone):
    assert found.keys() == alone.keys()
    for case, (loss, gradients, rows) in alone.items():
        assert_same_gradient(found[case][:2], (loss, gradients), rtol=1e-10 if "ecml" not in case else 1e-9)
        torch.testing.assert_close(found[case][2], rows, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_two_workers(alone):
    assert_same(launch(work.everything, (), workers=2), alone)


def test_torchrun_with_two_processes(alone, tmp_path):
    answer = tmp_path / "answer.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(ROOT / "tests" / "engine" / "work.py"), str(answer)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = command + script
    done = subprocess.run(line, cwd=ROOT, env=environment, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(answer, weights_only=True), alone)


def test_a_worker_killed_in_mid_step_ends_the_run():
    with pytest.raises(WorkerDied, match=r"worker 1 died \(signal 9\)"):
        launch(work.killed_in_mid_step, (), workers=2)
