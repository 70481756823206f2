"""The factor on the learning rate of what is not the start: which meta-parameters it is for, and what it does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import optimizers
from benchmark import data, train
from benchmark.engine.execution import Execution
from benchmark.engine.shutdown import Interrupted
from benchmark.meta_optimizer import create_meta_optimizer, split_start
from benchmark.runs import assembly, checkpoints
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from benchmark.training_state import Progress
from optimizers import registry
from optimizers.base import Card, InnerOptimizer
from tests.robustness.helpers import COMMON, TINY, execute, numbers, tiny
from tests.robustness.test_kill import StopAt

CPU = torch.device("cpu")
GLYPHS = RunSpec(**COMMON | {"dataset": "glyphs", "ways": 3, "channels": 4, "iterations": 2})


def trained(spec: RunSpec) -> tuple[InnerOptimizer, Progress]:
    dataset = data.load(spec.dataset)
    optimizer = assembly.build(spec, dataset.image_shape, CPU)
    return optimizer, train.train(optimizer, dataset, spec)


def values(optimizer: InnerOptimizer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in optimizer.named_parameters()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", optimizers.available())
def test_the_start_is_the_network_as_the_method_got_it(method: str) -> None:
    """In number, order and shape the parameters of the same network without a method; the rest is the method's."""
    optimizer = assembly.build(dataclasses.replace(GLYPHS, method=method), (1, 28, 28), CPU)
    plain = assembly.build(dataclasses.replace(GLYPHS, method="maml"), (1, 28, 28), CPU)
    start, geometry = split_start(optimizer)
    assert [each.shape for each in start] == [each.shape for each in plain.network.parameters()]
    assert {id(each) for each in (*start, *geometry)} == {id(each) for each in optimizer.parameters()}
    assert bool(geometry) == (method not in ("maml", "ecml"))


@pytest.mark.parametrize("how", [{"meta_optimizer": "adam"}, {"meta_optimizer": "sgd", "momentum": 0.9}])
def test_a_factor_of_one_makes_no_groups(how: dict[str, Any]) -> None:
    """And two groups of one learning rate would have given the same bits."""
    spec = dataclasses.replace(GLYPHS, method="metasgd", **how)
    optimizer, _ = trained(spec)
    assert len(create_meta_optimizer(optimizer, spec).param_groups) == 1
    assert "factor" not in create_meta_optimizer(optimizer, spec).state_dict()["param_groups"][0]
    nearly = dataclasses.replace(spec, geometry_lr=2.0)
    groups = create_meta_optimizer(optimizer, nearly).param_groups
    assert [(len(group["params"]), group.get("factor")) for group in groups] == [(18, None), (18, 2.0)]


def test_two_groups_of_one_rate_are_the_bits_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = trained(dataclasses.replace(GLYPHS, method="metasgd"))

    def split(optimizer: InnerOptimizer, spec: RunSpec) -> torch.optim.Optimizer:
        made = create_meta_optimizer(optimizer, dataclasses.replace(spec, geometry_lr=2.0))
        assert len(made.param_groups) == 2
        made.param_groups[1]["factor"] = 1.0
        return made

    monkeypatch.setattr(train, "create_meta_optimizer", split)
    assert equal(values(trained(dataclasses.replace(GLYPHS, method="metasgd"))[0]), values(plain))


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_maml_has_no_geometry_and_any_factor_gives_the_same_bits(factor: float) -> None:
    plain, _ = trained(GLYPHS)
    spec = dataclasses.replace(GLYPHS, geometry_lr=factor)
    other, _ = trained(spec)
    assert len(create_meta_optimizer(other, spec).param_groups) == 1
    assert equal(values(other), values(plain))


def first_step(**knobs: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """How one meta-step moves metasgd in float64, and the meta-gradient of that step."""
    spec = tiny(iterations=1, precision="float64", **knobs)
    dataset = data.load(spec.dataset)
    optimizer = assembly.build(spec, dataset.image_shape, CPU)
    before, double = values(optimizer), Execution(precision="float64")
    mean = train._batch_gradient(optimizer, TaskStream.of(spec, dataset, "train"), spec, range(spec.meta_batch), double)
    parts = mean[1:].split([value.numel() for value in before.values()])
    gradient = {name: part.view_as(before[name]) for name, part in zip(before, parts, strict=True)}
    train.train(optimizer, dataset, spec, double)
    return {name: value - before[name] for name, value in values(optimizer).items()}, gradient


def test_one_step_of_sgd_moves_the_rates_by_the_factor() -> None:
    """θ ← θ − η g for the start, a ← a − 5 η g for the rates."""
    moved, gradient = first_step(meta_optimizer="sgd", meta_lr=0.01, geometry_lr=5.0)
    assert any(not name.startswith("network.") for name in moved)
    for name, change in moved.items():
        rate = 0.01 if name.startswith("network.") else 0.05
        assert gradient[name].abs().max() > 0
        torch.testing.assert_close(change, -rate * gradient[name], rtol=1e-9, atol=1e-15)


def test_one_step_of_adam_moves_the_rates_by_the_factor() -> None:
    """Adam's first step is η g / (|g| + ε)."""
    moved, gradient = first_step(meta_lr=0.01, geometry_lr=0.2)
    for name, change in moved.items():
        rate, g = 0.01 if name.startswith("network.") else 0.002, gradient[name]
        torch.testing.assert_close(change, -rate * g / (g.abs() + 1e-8), rtol=1e-9, atol=1e-15)


def test_the_schedule_applies_to_both_parts() -> None:
    """After one decay by 0.5, η is halved for the start and for the rates."""
    knobs = {"method": "metasgd", "meta_optimizer": "sgd", "meta_lr": 0.01, "lr_gamma": 0.5, "geometry_lr": 5.0}
    spec = tiny(precision="float64", lr_step=1, **knobs | {"iterations": 1})
    dataset = data.load(spec.dataset)
    optimizer = assembly.build(spec, dataset.image_shape, CPU)
    stream = TaskStream.of(spec, dataset, "train")
    made = create_meta_optimizer(optimizer, spec)
    seen = []
    made.step = lambda: seen.append([group["lr"] for group in made.param_groups])  # type: ignore[method-assign]
    for iteration in range(3):
        train._meta_step(optimizer, made, stream, spec, Progress(iteration=iteration), Execution(precision="float64"))
    assert seen == [pytest.approx([rate, 5 * rate]) for rate in (0.01, 0.005, 0.0025)]


@pytest.mark.parametrize("how", [{}, {"meta_optimizer": "sgd", "momentum": 0.9}])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_it_goes_on_to_the_same_bits(stop: int, how: dict[str, Any], tmp_path: Path) -> None:
    spec = tiny(geometry_lr=5.0, **how)
    execute(tmp_path / "unbroken", spec)
    with pytest.raises(Interrupted):
        execute(tmp_path, spec, stop=StopAt(stop))
    groups = checkpoints.read_checkpoint(tmp_path / spec.name / "checkpoint.pt")["meta_optimizer"]["param_groups"]
    assert [group.get("factor") for group in groups] == [None, 5.0]
    execute(tmp_path, spec)
    assert numbers(tmp_path / spec.name) == numbers(tmp_path / "unbroken" / spec.name)
    assert spec.name != TINY.name


class Foreign(InnerOptimizer):
    """A method that nobody here knows: a rate of its own beside the network, under a name like the network's."""

    card = Card(title="foreign", paper="–", geometry="scalar", equation="φ − a G", learned="a")

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__(network, **options)
        self.network_rate = nn.Parameter(torch.tensor(self.alpha))

    def step(self, state: Any, grads: Any, k: int) -> Any:
        return {"phi": {name: p - self.network_rate * grads[name] for name, p in state["phi"].items()}}


def test_a_method_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registered, "foreign", Foreign)
    spec = tiny(method="foreign", meta_optimizer="sgd", meta_lr=0.01, iterations=1)
    _, geometry = split_start(assembly.build(spec, data.load("sine").image_shape, CPU))
    assert [each.shape for each in geometry] == [torch.Size([])]
    once, five = (values(trained(dataclasses.replace(spec, geometry_lr=factor))[0]) for factor in (1.0, 5.0))
    moved = [each["network_rate"] - torch.tensor(spec.alpha) for each in (once, five)]
    torch.testing.assert_close(moved[1], 5 * moved[0], rtol=1e-4, atol=1e-7)
    del once["network_rate"], five["network_rate"]
    assert equal(once, five)


def test_the_factor_has_a_flag_and_a_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.cli import parser

    flags = ["run", "--methods", "maml", "--dry-run", "--results", str(tmp_path)]
    assert parser.main([*flags, "--geometry-lr", "0.5"]) == 0
    assert parser.main([*flags, "--geometry-lr", "0"]) != 0
    assert "geometry_lr must be above 0" in capsys.readouterr().err
