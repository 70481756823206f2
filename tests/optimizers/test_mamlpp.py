"""MAML++ against its equations, written out: rates of a tensor and a step, and the loss of every step weighed."""

import pytest
import torch

from benchmark.adapt import adapt
from benchmark.metagrad import evaluate_batch, meta_gradient, tasks
from benchmark.runs import assembly
from benchmark.spec import RunSpec
from optimizers import BadOption
from optimizers.contract.kit import perturb
from optimizers.mamlpp import MAMLPlusPlus, step_weights
from optimizers.testing import check_inner_optimizer
from tests.engine.helpers import assert_same_gradient
from tests.optimizers.helpers import batch, create

HORIZON = 3


def settled(**options):
    method = create("mamlpp", alpha=0.2, horizon=HORIZON, **options)
    perturb(method, 0.05)
    return method


def by_hand(method, task, steps):
    """φ_1 … φ_steps with their graph; a step beyond the horizon has the rates of its last."""
    phi, visited = dict(method.start()), []
    for k in range(steps):
        loss = method.loss(phi, task.support_x, task.support_y)
        found = torch.autograd.grad(loss, list(phi.values()), create_graph=True, allow_unused=True)
        rates = method.rates[k] if k < HORIZON else method.rates[HORIZON - 1]
        phi = {
            name: p if g is None else p - rates[i] * g
            for i, ((name, p), g) in enumerate(zip(phi.items(), found, strict=True))
        }
        visited.append(phi)
    return visited


def test_rates_of_a_tensor_and_a_step():
    method, task = settled(), batch(1)
    assert method.rates.shape == (HORIZON, len(method.adapted))
    one = tasks(task)[0]
    expected = by_hand(method, one, HORIZON + 2)
    for steps in (1, HORIZON, HORIZON + 2):
        found = adapt(method, one.support_x, one.support_y, steps=steps).params
        for name, value in found.items():
            torch.testing.assert_close(value, expected[steps - 1][name].detach(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("progress", "weights"),
    [
        (0.0, [1 / 3, 1 / 3, 1 / 3]),
        (0.1, [1 / 6, 1 / 6, 2 / 3]),  # half of the way
        (0.15, [1 / 12, 1 / 12, 5 / 6]),
        (0.2, [0.0, 0.0, 1.0]),
        (0.9, [0.0, 0.0, 1.0]),
    ],
)
def test_the_outer_loss_is_a_weighted_sum_whose_weight_moves_to_the_last_step(progress, weights):
    method, task = settled(multi_step=0.2), batch(2)
    total = 0.0
    for one in tasks(task):
        points = by_hand(method, one, 3)
        losses = [w * method.loss(phi, one.query_x, one.query_y) for w, phi in zip(weights, points, strict=True)]
        total = total + sum(losses) / 2
    named = dict(method.named_parameters())
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True, materialize_grads=True)
    expected = total.detach(), dict(zip(named, found, strict=True))
    for strategy, recompute in (("loop", False), ("loop", True), ("vmap", False), ("vmap", True)):
        if strategy == "loop" or progress == 0.1:
            result = meta_gradient(method, task, 3, strategy, recompute, progress=progress)
            assert_same_gradient(result, expected, rtol=1e-9)


@pytest.mark.parametrize("epoch", [0, 5, 14])
def test_weights_are_those_of_the_code_at_the_start_of_an_epoch(epoch):
    """1/5 − epoch/(5 · 15) before the last of five steps in 15 epochs; the last one has what is left of 1."""
    weights = step_weights(5, epoch / 15)
    assert weights[:4] == pytest.approx([0.2 - epoch * 0.2 / 15] * 4)
    assert weights[4] == pytest.approx(0.2 + epoch * 4 * 0.2 / 15)
    assert sum(weights) == pytest.approx(1, abs=1e-15)


def test_without_multi_step_loss_or_with_one_step_it_is_mamls():
    method, plain, task = settled(), settled(multi_step=0.0), batch(1)
    last = meta_gradient(method, task, 2, progress=1.0)
    assert_same_gradient(meta_gradient(plain, task, 2, progress=0.0), last, rtol=1e-12)
    assert not torch.equal(meta_gradient(method, task, 2, progress=0.0)[0], last[0])
    once = [meta_gradient(method, task, 1, progress=progress) for progress in (0.0, 1.0)]
    assert_same_gradient(*once, rtol=1e-12)


def test_evaluation_asks_for_no_objective(monkeypatch):
    method = settled()
    monkeypatch.setattr(method, "objective", None)
    assert evaluate_batch(method, batch(2), HORIZON).nll.isfinite().all()


def test_the_kit_looks_at_an_early_objective():
    found = {f.rule: f for f in check_inner_optimizer(lambda net: MAMLPlusPlus(net, alpha=0.1))}
    assert "early and late" in found["differences"].detail


def test_a_run_gives_its_steps_as_the_horizon():
    spec = RunSpec(method="mamlpp", steps=3, channels=4)
    assert len(assembly.build(spec, (1, 16, 16)).rates) == 3
    told = RunSpec(method="mamlpp", steps=3, channels=4, options={"horizon": 7})
    assert len(assembly.build(told, (1, 16, 16)).rates) == 7


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"multi_step": 1.5}, "multi_step must lie between 0 and 1, got 1.5"),
        ({"multi_step": float("nan")}, "multi_step must lie between 0 and 1, got nan"),
    ],
)
def test_bad_values(option, message):
    with pytest.raises(BadOption, match=message):
        create("mamlpp", **option)
