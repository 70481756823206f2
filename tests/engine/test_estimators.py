"""Estimators: their limits, one gradient by every strategy, and truncation against a loop written out by hand."""

import pytest
import torch

import optimizers
from benchmark import metagrad
from benchmark.engine import fused
from benchmark.errors import UserError
from benchmark.estimators import exact_from
from benchmark.metagrad import meta_gradient
from tests.engine.helpers import assert_same_gradient, settled

K = 2


def same_bits(found, expected):
    return torch.equal(found[0], expected[0]) and all(torch.equal(found[1][n], g) for n, g in expected[1].items())


@pytest.mark.parametrize("method", optimizers.available())
def test_limits_and_strategies(method):
    """L = K is exact, L = 0 is first-order, each the same by loop, vmap and recompute; all three are different.

    What a strategy knows of an estimator is the first step with a graph, which the two limits share with their names.
    """
    optimizer, batch, noise = settled(method)
    found = {}
    for estimator in ("exact", f"truncated:{K}", "truncated:1", "truncated:0", "first-order"):
        with fused.disabled():
            found[estimator] = meta_gradient(optimizer, batch, K, "loop", estimator=estimator, noise=noise)
        if estimator in (f"truncated:{K}", "truncated:0"):
            continue
        for strategy, recompute in (("loop", False), ("loop", True), ("vmap", False), ("vmap", True)):
            other = meta_gradient(optimizer, batch, K, strategy, recompute, estimator, noise)
            assert_same_gradient(other, found[estimator], rtol=1e-10 if method != "ecml" else 1e-9)
    assert [exact_from(name, K) for name in found] == [0, 0, 1, 2, 2]
    assert same_bits(found[f"truncated:{K}"], found["exact"])
    assert same_bits(found["truncated:0"], found["first-order"])
    for one, other in (("exact", "truncated:1"), ("truncated:1", "first-order")):
        torch.testing.assert_close(found[one][0], found[other][0], rtol=1e-12, atol=0)  # a loss is no estimate
        assert not same_bits(found[one], found[other])


@pytest.mark.parametrize("method", ["maml", "metasgd"])
@pytest.mark.parametrize("exact_steps", [0, 1, 2, 3])
def test_truncation_by_hand(method, exact_steps):
    """φ_{k+1} = φ_k − a ⊙ G_k, G_k detached but in the last L of three steps; then ordinary autograd."""
    steps = 3
    optimizer, batch, _ = settled(method, "sine-mlp")
    start = dict(optimizer.network.named_parameters())
    rates = optimizer.rates() if method == "metasgd" else dict.fromkeys(start, optimizer.alpha)

    def loss(phi, x, y):
        hidden = x
        for layer in ("linear1", "linear2"):
            hidden = torch.relu(hidden @ phi[f"{layer}.weight"].T + phi[f"{layer}.bias"])
        return ((hidden @ phi["head.weight"].T + phi["head.bias"] - y) ** 2).mean()

    total = 0.0
    for task in metagrad.tasks(batch):
        phi = dict(start)
        for k in range(steps):
            found = torch.autograd.grad(
                loss(phi, task.support_x, task.support_y), list(phi.values()), create_graph=True
            )
            if k < steps - exact_steps:
                found = [g.detach() for g in found]
            phi = {n: p - rates[n] * g for (n, p), g in zip(phi.items(), found, strict=True)}
        total = total + loss(phi, task.query_x, task.query_y) / len(batch.support_x)
    named = dict(optimizer.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))
    found = meta_gradient(optimizer, batch, steps, "loop", estimator=f"truncated:{exact_steps}")
    assert_same_gradient(found, (total.detach(), expected), rtol=1e-11)


def test_the_derivative_of_warpgrads_look_ahead_is_exact_under_any_estimator():
    """Warp layers learn from look-aheads alone, so that their gradient does not know the estimator."""
    optimizer, batch, _ = settled("warpgrad")
    exact, first = (meta_gradient(optimizer, batch, K, estimator=each)[1] for each in ("exact", "first-order"))
    warped = [name for name in exact if ".inserted." in name]
    assert warped
    assert all(exact[name].any() for name in warped)
    for name in warped:
        torch.testing.assert_close(first[name], exact[name], rtol=1e-12, atol=0)
    assert not torch.equal(first["network.conv1.weight"], exact["network.conv1.weight"])


@pytest.mark.parametrize("estimator", ["first_order", "truncated:3", "truncated:x"])
def test_an_unknown_estimator_is_a_user_error(estimator):
    optimizer, batch, _ = settled("maml", "sine-mlp")
    with pytest.raises(UserError, match="estimator"):
        meta_gradient(optimizer, batch, K, estimator=estimator)
