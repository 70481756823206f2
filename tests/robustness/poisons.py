"""Methods that fail in one way each."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from benchmark import data
from benchmark.tasks import TaskStream
from optimizers.base import Params, Task, Trajectory
from optimizers.maml import GradientDescent
from tests.robustness.helpers import TINY

NAN = float("nan")


class InnerLoss(GradientDescent):
    """NaN in the support loss: as many examples as shots (the query set must have another number)."""

    def loss(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        return super().loss(params, x, y) * (NAN if len(x) == TINY.shots else 1.0)


class OuterLoss(GradientDescent):
    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        return super().objective(task, trajectory) + torch.inf


class MetaGradient(GradientDescent):
    """√|0·φ| is 0; its derivative is NaN."""

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        zero = (next(iter(trajectory.params.values())).sum() * 0).abs().sqrt()
        return super().objective(task, trajectory) + zero


class OneTask(GradientDescent):
    """NaN on the fifth training task alone: the second of the second meta-step of three."""

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        fifth = TaskStream.of(TINY, data.load("sine"), "train").batch([4]).support_x[0]
        return super().objective(task, trajectory) * (NAN if torch.equal(task.support_x, fifth) else 1.0)


class OneTestTask(GradientDescent):
    """NaN on the fifth test task alone."""

    where = ("test", 4)

    def predict(self, params: Params, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        split, index = self.where
        queries = TaskStream.of(TINY, data.load("sine"), split).batch([index]).query_x[0]
        return super().predict(params, x, support_x) * (NAN if torch.equal(x, queries) else 1.0)


class OneValidationTask(OneTestTask):
    """NaN on the second validation task alone."""

    where = ("val", 1)


class OutOfMemory(GradientDescent):
    """Holds a tensor and asks for too much beside it."""

    held: weakref.ref | None = None
    error: type[Exception] | None = None

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        mine = torch.zeros(1000)
        type(self).held = weakref.ref(mine)
        if self.error is not None:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 GiB")
        return torch.empty(2**60, dtype=torch.uint8).sum() + mine.sum()


class Poet(GradientDescent):
    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        raise RuntimeError("out of memory I sing")


class Witness(GradientDescent):
    """Notes whether what :class:`OutOfMemory` held is gone."""

    saw: bool | None = None

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        assert OutOfMemory.held is not None
        type(self).saw = OutOfMemory.held() is not None
        return super().objective(task, trajectory)


POISONS = {
    "inner-loss": InnerLoss,
    "outer-loss": OuterLoss,
    "meta-gradient": MetaGradient,
    "one-task": OneTask,
    "one-test-task": OneTestTask,
    "one-validation-task": OneValidationTask,
    "out-of-memory": OutOfMemory,
    "poet": Poet,
    "witness": Witness,
}
