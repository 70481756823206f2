"""A trained run as ``verify`` looks at it: its best meta-parameters and two tasks of its test split, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmark import data
from benchmark.errors import UserError
from benchmark.evaluate import draw_noise, to_device
from benchmark.metagrad import Task
from benchmark.recipes import FLOOR
from benchmark.runs import store
from benchmark.runs.assembly import load_trained
from benchmark.spec import RunSpec
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
    if spec.method == FLOOR:
        raise UserError(f"{path}: {FLOOR} learns nothing; name the run of a method")
    optimizer = load_trained(run, data_root)
    cpu, dataset = torch.device("cpu"), data.load(spec.dataset, data_root)
    drawn = data.sample(dataset, "test", spec.ways, spec.shots, spec.query_test, spec.seed, range(2))
    columns = (t.double() if t.is_floating_point() else t for t in to_device(drawn, cpu, spec))
    noise = draw_noise(optimizer, spec, "test", range(2), cpu)
    return Checkpoint(path.name, spec, optimizer.double(), Task(*columns), noise)
