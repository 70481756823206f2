"""A trained run as ``verify`` looks at it: its best meta-parameters and two tasks of its test split, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmark import data
from benchmark.engine.execution import Execution
from benchmark.errors import UserError
from benchmark.metagrad import Task
from benchmark.recipes import BASELINE
from benchmark.runs import store
from benchmark.runs.assembly import load_trained
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from optimizers.base import InnerOptimizer


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was read of one run."""

    name: str
    spec: RunSpec
    optimizer: InnerOptimizer
    batch: Task
    """Two tasks."""
    noise: Tensor | None


def load(path: Path, data_root: Path | None) -> Checkpoint:
    """The best checkpoint of the run at `path`; :class:`UserError` where there is none."""
    run = store.load_run(path)
    spec = RunSpec.from_dict(run.spec)
    if spec.method == BASELINE:
        raise UserError(f"{path}: {BASELINE} learns nothing; name the run of a method")
    optimizer = load_trained(run, data_root)
    stream = TaskStream.of(spec, data.load(spec.dataset, data_root), "test")
    drawn = stream.batch(range(2), Execution(precision=spec.precision))
    columns = (t.double() if t.is_floating_point() else t for t in drawn)
    return Checkpoint(path.name, spec, optimizer.double(), Task(*columns), stream.noise(optimizer, range(2)))
