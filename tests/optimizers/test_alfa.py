"""ALFA against its rule written out tensor by tensor; what is learned and what is not; the code's constants."""

from pathlib import Path

import pytest
import torch

import optimizers
from benchmark import networks
from benchmark.adapt import adapt, support_gradient
from benchmark.meta_optimizer import create_meta_optimizer, split_start
from benchmark.metagrad import meta_gradient, tasks
from benchmark.runs import assembly, checkpoints
from benchmark.spec import RunSpec
from optimizers import BadOption
from optimizers.base import key
from optimizers.contract.kit import perturb
from tests.engine.helpers import assert_same_gradient
from tests.optimizers.helpers import batch, create
from tests.robustness.helpers import execute, tiny

HORIZON = 2
METHODS = ("alfa", "alfa-released")


def settled(name, **options):
    torch.manual_seed(0)
    method = create(name, alpha=0.2, horizon=HORIZON, **options)
    perturb(method, 0.05)
    return method


def by_hand(method, task, steps, *, seen_is_constant):
    """φ_steps with its graph: φ_i ← (1 − c_i b_{k,i} g_β) φ_i − a_{k,i} g_α G_i for the tensors i = 1 … n."""
    first, last = method.generator[0], method.generator[2]
    phi, count = dict(method.start()), len(method.adapted)
    for k in range(steps):
        grads = support_gradient(method, phi, task.support_x, task.support_y, create_graph=True)[1]
        tau = []
        for value in phi.values():
            tau.append(value.sum() / value.numel())
        for value in grads.values():
            mean = value.sum() / value.numel()
            tau.append(mean.detach() if seen_is_constant else mean)
        hidden = (first.weight @ torch.stack(tau) + first.bias).clamp(min=0)
        said = last.weight @ hidden + last.bias
        row, moved = min(k, HORIZON - 1), {}
        for i, (name, value) in enumerate(phi.items()):
            alpha = method.rate_scale[row, i] * said[i]
            decay = method.decay_scale[row, i] * said[count + i]
            if method.coordinate is not None:
                decay = decay * method.coordinate[key(name)]
            moved[name] = value - decay * value - alpha * grads[name]
        phi = moved
    return phi


@pytest.mark.parametrize("start", ["learned", "random"])
@pytest.mark.parametrize("name", METHODS)
def test_trajectory_and_meta_gradient(name, start):
    """The meta-gradient tells the two apart: in the released one the gradients that g sees are constants."""
    method, task = settled(name, start=start), batch(1)
    one = tasks(task)[0]
    phi = by_hand(method, one, HORIZON + 1, seen_is_constant=name == "alfa-released")
    found = adapt(method, one.support_x, one.support_y, steps=HORIZON + 1).params
    for tensor, value in phi.items():
        torch.testing.assert_close(found[tensor], value.detach(), rtol=1e-10, atol=1e-12)
    loss = method.loss(phi, one.query_x, one.query_y)
    named = {n: p for n, p in method.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    expected = {n: torch.zeros_like(p) for n, p in method.named_parameters()}
    expected |= dict(zip(named, slopes, strict=True))
    for strategy, recompute in (("loop", False), ("vmap", True)):
        result = meta_gradient(method, task, HORIZON + 1, strategy, recompute)
        assert_same_gradient(result, (loss.detach(), expected), rtol=1e-9)


def test_the_constant_makes_a_difference():
    method, task = settled("alfa"), batch(1)
    other = settled("alfa-released")
    other.load_state_dict(method.state_dict())
    (loss, whole), (same, part) = (meta_gradient(m, task, HORIZON) for m in (method, other))
    torch.testing.assert_close(loss, same, rtol=1e-12, atol=0)
    assert max(float((whole[n] - part[n]).abs().max()) for n in whole) > 1e-6


def test_alfa_starts_at_mamls_rates_without_decay_and_the_released_one_at_random():
    method, released = create("alfa", alpha=0.3), create("alfa-released", alpha=0.3)
    count = len(method.adapted)
    tau = torch.randn(2 * count, dtype=torch.float64)
    assert torch.equal(method.generator(tau), torch.cat([torch.ones(count), torch.zeros(count)]).double())
    said = released.generator(tau).detach()
    assert said.abs().max() < 1
    assert said.min() < 0 < said.max()
    for each in (method, released):
        assert (each.rate_scale == 0.3).all()
        torch.testing.assert_close(each.decay_scale, torch.full_like(each.decay_scale, 0.3 * 5e-4), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "how", [{}, {"meta_optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1, "geometry_lr": 2.0}]
)
def test_a_random_start_is_never_learned(how, tmp_path: Path):
    """Not even weight decay reaches it, and batch norm is part of it."""
    spec = tiny(method="alfa", options={"start": "random"}, **how)
    shape = (1,)
    untrained = assembly.build(spec, shape)
    execute(tmp_path, spec)
    payload = checkpoints.read_checkpoint(tmp_path / spec.name / "checkpoint.pt")["meta_parameters"]
    moved = {name for name, value in untrained.state_dict().items() if not torch.equal(payload[name], value)}
    assert moved
    assert not {name for name in moved if name.startswith("network.")}
    start, geometry = split_start(untrained)
    assert not start
    assert {id(p) for p in geometry} == {id(p) for n, p in untrained.named_parameters() if not n.startswith("network.")}
    held = create_meta_optimizer(untrained, spec).param_groups
    assert sum(len(group["params"]) for group in held) == len(geometry)


def test_what_is_never_to_be_learned_stays_so():
    network = networks.create("cnn4", 3, (1, 16, 16), 4)
    network.conv1.requires_grad_(False)
    optimizers.create("alfa", network)
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["conv1.weight", "conv1.bias"]


def test_a_run_gives_its_steps_as_the_horizon():
    assert len(assembly.build(RunSpec(method="alfa", steps=3, channels=4), (1, 16, 16)).rate_scale) == 3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"decay": 0.0}, "decay must be positive, got 0.0"),
        ({"start": "rand"}, r"start='rand': expected one of learned, random \(did you mean 'random'\?\)"),
    ],
)
def test_bad_values(option, message):
    with pytest.raises(BadOption, match=message):
        create("alfa", **option)
