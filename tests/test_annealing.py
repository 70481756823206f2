"""What changes as meta-training goes on: the learning rate, order of derivatives, progress that objectives see."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark import data, train
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.meta_optimizer import learning_rate
from benchmark.metagrad import meta_gradient
from benchmark.runs import assembly
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from tests.robustness.helpers import TINY, execute, numbers, tiny
from tests.robustness.test_kill import StopAt

EVERYTHING: dict[str, Any] = {
    "method": "mamlpp",
    "options": {"multi_step": 0.7},
    "steps": 2,
    "lr_schedule": "cosine",
    "lr_min": 1e-4,
    "first_order_for": 2,
}


def test_half_a_cosine_over_all_meta_steps() -> None:
    """η = η_min + (η_0 − η_min)(1 + cos(π i/I))/2, and torch's scheduler."""
    spec = RunSpec(meta_lr=0.1, lr_min=0.02, lr_schedule="cosine", iterations=8)
    rates = [learning_rate(spec, i) for i in range(9)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.06)
    assert rates[2] == pytest.approx(0.02 + 0.08 * (1 + math.sqrt(0.5)) / 2)
    assert rates[8] == pytest.approx(0.02)
    moved = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(moved, 8, eta_min=0.02)
    for rate in rates:
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        moved.step()
        schedule.step()


def test_order_and_progress_reach_the_meta_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny(iterations=4, first_order_for=3, steps=2, estimator="truncated:1", validate_every=9)
    seen = []

    def looking(optimizer, batch, steps, strategy, recompute, estimator, noise, progress):
        seen.append((estimator, progress))
        return meta_gradient(optimizer, batch, steps, strategy, recompute, estimator, noise, progress)

    monkeypatch.setattr(train, "meta_gradient", looking)
    dataset = data.load(spec.dataset)
    optimizer = assembly.build(spec, dataset.image_shape)
    stream = TaskStream.of(spec, dataset, "train")
    for iteration in range(4):
        first = iteration * spec.meta_batch
        train._batch_gradient(optimizer, stream, spec, range(first, first + spec.meta_batch), train.PLAIN)
    each = [("first-order", 0.0), ("first-order", 0.25), ("first-order", 0.5), ("truncated:1", 0.75)]
    assert seen == [entry for entry in each for _ in range(spec.meta_batch)]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_it_goes_on_to_the_same_bits(stop: int, tmp_path: Path) -> None:
    spec = tiny(**EVERYTHING)
    execute(tmp_path / "unbroken", spec)
    with pytest.raises(Interrupted):
        execute(tmp_path, spec, stop=StopAt(stop))
    execute(tmp_path, spec)
    expected = numbers(tmp_path / "unbroken" / spec.name)
    assert numbers(tmp_path / spec.name) == expected


@pytest.mark.parametrize("without", ["lr_schedule", "first_order_for", "options"])
def test_each_makes_a_difference(without: str, tmp_path: Path) -> None:
    knobs = {key: value for key, value in EVERYTHING.items() if key != without}
    if without == "lr_schedule":
        del knobs["lr_min"]
    if without == "options":
        knobs["options"] = {"multi_step": 0.0}
    whole, other = tiny(**EVERYTHING), tiny(**knobs)
    for spec in (whole, other):
        execute(tmp_path, spec)
    found = [numbers(tmp_path / spec.name) for spec in (whole, other)]
    assert found[0]["meta_parameters.rates"] != found[1]["meta_parameters.rates"]


def test_a_knob_at_its_default_renames_no_run() -> None:
    named = RunSpec.from_dict(TINY.to_dict() | {"lr_schedule": "step", "lr_min": 0.0, "first_order_for": 0})
    assert named.name == TINY.name
    assert not {"lr_schedule", "lr_min", "first_order_for"} & TINY.changed().keys()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"lr_schedule": "cosine", "lr_step": 5}, "lr_step 5 goes with lr_schedule step, not cosine"),
        ({"lr_min": 1e-4}, "lr_min 0.0001 goes with lr_schedule cosine"),
        ({"lr_schedule": "cosine", "lr_min": 0.1}, "lr_min 0.1 goes with lr_schedule cosine and at most meta_lr 0.001"),
        ({"lr_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"first_order_for": -1}, "first_order_for must be at least 0, got -1"),
    ],
)
def test_what_does_not_go_together(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunSpec(**knobs)
