"""Meta-training against its equations: the update, the schedule, which tasks, which checkpoint; and how it measures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import optimizers
from benchmark import data, evaluate, meta_optimizer, train
from benchmark.engine.execution import Execution
from benchmark.metagrad import Evaluation, meta_gradient
from benchmark.runs import assembly
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from benchmark.training_state import Progress

CPU = torch.device("cpu")
GRADIENT = torch.tensor([0.5, -3.0, 0.01, 8.0], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 3.0, -4.0], dtype=torch.float64)


class Stub:
    """What replaces the work of a meta-step and of a validation: a fixed gradient, given scores; it notes its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> None:
        self.tasks: list[int] = []
        self.validations: list[tuple] = []
        self.seen: list[torch.Tensor] = []
        network = nn.Linear(4, 1, bias=False, dtype=torch.float64)
        network.weight.data = START.clone()[None]
        self.optimizer = optimizers.create("maml", network)

        def gradient(optimizer, stream, steps, indices, execution):
            self.tasks += indices
            return torch.cat([torch.ones(1, dtype=torch.float64), GRADIENT])

        def measure(optimizer, stream, protocol, execution, **rest):
            tasks = protocol.tasks
            self.validations.append((stream.split, tasks, protocol.steps, protocol.trace_steps))
            self.seen.append(self.theta())
            accuracy, nll = scores[len(self.validations) - 1]
            return pd.DataFrame({"accuracy": [accuracy] * tasks, "nll": [nll] * tasks})

        monkeypatch.setattr(train, "_batch_gradient", gradient)
        monkeypatch.setattr(train, "measure", measure)

    def theta(self) -> torch.Tensor:
        return next(self.optimizer.parameters()).detach().clone().flatten()

    def run(self, **knobs) -> Progress:
        spec = RunSpec(**{"iterations": 3, "validate_every": 1, "validation_tasks": 7} | knobs)
        return train.train(self.optimizer, SimpleNamespace(), spec)


RISING = [(0.1 * (i + 1), 1.0) for i in range(10)]


@pytest.mark.parametrize(("clip", "decay"), [(0.0, 0.0), (1.0, 0.1)])
def test_sgd_with_nesterov_momentum(clip: float, decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(monkeypatch, RISING)
    stub.run(meta_optimizer="sgd", meta_lr=0.1, momentum=0.9, weight_decay=decay, clip=clip)
    clipped = GRADIENT.clamp(-clip, clip) if clip else GRADIENT
    theta, velocity = START.clone(), torch.zeros(4)
    for _ in range(3):
        g = clipped + decay * theta
        velocity = 0.9 * velocity + g
        theta = theta - 0.1 * (g + 0.9 * velocity)
    torch.testing.assert_close(stub.theta(), theta, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("clip", "decay"), [(0.0, 0.0), (1.0, 0.1)])
def test_adam(clip: float, decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(monkeypatch, RISING)
    stub.run(meta_lr=0.1, weight_decay=decay, clip=clip)
    clipped = GRADIENT.clamp(-clip, clip) if clip else GRADIENT
    theta, first, second = START.clone(), torch.zeros(4), torch.zeros(4)
    for t in (1, 2, 3):
        g = clipped + decay * theta
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        theta = theta - 0.1 * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    torch.testing.assert_close(stub.theta(), theta, rtol=1e-9, atol=0)


def test_the_learning_rate_falls_after_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(meta_lr=0.1, lr_step=20, lr_gamma=0.5)
    rates = [meta_optimizer.learning_rate(spec, i) for i in (0, 19, 20, 39, 40)]
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert meta_optimizer.learning_rate(RunSpec(meta_lr=0.1), 10**6) == 0.1
    stub = Stub(monkeypatch, RISING)
    stub.run(meta_optimizer="sgd", meta_lr=0.1, lr_step=2, lr_gamma=0.5)
    torch.testing.assert_close(stub.theta(), START - (0.1 + 0.1 + 0.05) * GRADIENT, rtol=1e-12, atol=0)


def test_every_training_task_is_met_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(monkeypatch, RISING)
    stub.run(meta_batch=5)
    assert stub.tasks == list(range(15))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.3, 1.0), (0.5, 2.0), (0.5, 1.0), (0.4, 0.5)], 2),  # the most accurate, of equals the earlier
        ([(np.nan, 3.0), (np.nan, 1.0), (np.nan, 2.0), (np.nan, 1.0)], 2),  # regression: the least loss
    ],
)
def test_the_best_checkpoint_is_kept(scores: list, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(monkeypatch, scores)
    progress = stub.run(iterations=4)
    assert progress.best_iteration == best
    assert torch.equal(stub.theta(), stub.seen[best - 1])
    assert not torch.equal(stub.theta(), stub.seen[-1])


def test_time_of_meta_steps_and_of_validations_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    stub, clock = Stub(monkeypatch, RISING), SimpleNamespace(now=0.0)
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def takes(seconds, work):
        def slow(*args, **named):
            clock.now += seconds
            return work(*args, **named)

        return slow

    monkeypatch.setattr(train, "_batch_gradient", takes(1.0, train._batch_gradient))
    monkeypatch.setattr(train, "measure", takes(100.0, train.measure))
    progress = stub.run(iterations=4, validate_every=2)
    assert (progress.train_s, progress.validate_s) == (4.0, 200.0)


def test_a_validation_without_any_finite_loss_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(monkeypatch, [(0.3, 1.0), (0.9, np.nan)])
    with pytest.raises(train.Diverged, match="after meta-step 2"):
        stub.run()


def test_validation_follows_the_test_protocol_on_the_validation_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(monkeypatch, RISING)
    progress = stub.run(iterations=5, validate_every=2, steps=3, eval_steps=4)
    assert stub.validations == [("val", 7, 4, 4)] * 3
    assert progress.validation_table()["iteration"].tolist() == [2, 4, 5]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_batch_is_the_mean_over_its_training_tasks(strategy: str, recompute: bool, data_root: Path) -> None:
    spec = RunSpec(channels=4, steps=2, meta_batch=3, query_train=2, alpha=0.1, precision="float64", method="mtnet")
    dataset = data.load("glyphs", data_root)
    optimizer = assembly.build(spec, dataset.image_shape, CPU)
    stream = TaskStream.of(spec, dataset, "train")
    execution = Execution(strategy=strategy, recompute=recompute, precision="float64")
    found = train._batch_gradient(optimizer, stream, spec, range(3, 6), execution)
    batch = TaskStream(dataset, "train", 5, 1, 2, 0).batch([3, 4, 5], execution)
    noise = stream.noise(optimizer, [3, 4, 5])
    loss, gradients = meta_gradient(optimizer, batch, steps=2, strategy="loop", noise=noise)
    expected = torch.cat([loss[None], *(g.flatten() for g in gradients.values())])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_measuring_uses_the_test_protocol(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(channels=4, query_train=3, query_test=2, steps=1, eval_steps=2, trace_steps=3)
    dataset = data.load("glyphs", data_root)
    calls = []

    def evaluated(optimizer, batch, steps, trace_steps, **rest):
        calls.append((batch, steps, trace_steps))
        count = len(batch.support_x)
        return Evaluation(torch.ones(count), torch.zeros(count), torch.zeros(count, 4), torch.zeros(count, 4))

    monkeypatch.setattr(evaluate, "evaluate_batch", evaluated)
    optimizer = assembly.build(spec, dataset.image_shape, CPU)
    protocol = evaluate.EvaluationProtocol(tasks=9, steps=2, trace_steps=3)
    table = evaluate.measure(optimizer, TaskStream.of(spec, dataset, "test"), protocol)  # in chunks of 8 and 1
    assert [(len(batch.support_x), steps, trace) for batch, steps, trace in calls] == [(8, 2, 3), (1, 2, 3)]
    expected = data.sample(data.Episodes(dataset, "test", 5, 1, 2, 0), range(9))
    assert torch.equal(torch.cat([batch.query_x for batch, _, _ in calls]), expected.query_x)
    assert table["task"].tolist() == list(range(9))
