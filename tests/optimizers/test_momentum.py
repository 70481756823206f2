"""Heavy ball against Polyak's own form of it, which knows no velocity, and against torch's SGD with momentum."""

import pytest
import torch

from benchmark.adapt import adapt, support_gradient
from optimizers import BadOption
from optimizers.contract.kit import perturb
from tests.optimizers.helpers import batch, create

STEPS = 4


def gradient(method, phi, x, y):
    return support_gradient(method, phi, x, y, create_graph=False)[1]


def test_polyaks_form():
    """φ_{k+1} = φ_k − a G_k + β (φ_k − φ_{k−1}), whose a and β are those of a tensor."""
    method, task = create("momentum", alpha=0.3, beta=0.5), batch(1)
    perturb(method, 0.3)
    x, y = task.support_x[0], task.support_y[0]
    rate, beta = method.log_rate.detach().exp().tolist(), method.slope.detach().tanh().tolist()
    assert len({*rate}) == len({*beta}) == len(method.adapted)
    assert all(-1 < each < 1 for each in beta)
    now = before = {name: value.detach() for name, value in method.start().items()}
    for _ in range(STEPS):
        grads = gradient(method, now, x, y)
        after = {
            name: now[name] - rate[i] * grads[name] + beta[i] * (now[name] - before[name])
            for i, name in enumerate(method.adapted)
        }
        now, before = after, now
    found = adapt(method, x, y, steps=STEPS).params
    for name, value in now.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12)


def test_torchs_sgd_with_momentum():
    method, task = create("momentum", alpha=0.2, beta=0.9), batch(1)
    x, y = task.support_x[0], task.support_y[0]
    phi = {name: value.detach().clone().requires_grad_() for name, value in method.start().items()}
    sgd = torch.optim.SGD(phi.values(), lr=0.2, momentum=0.9)
    for _ in range(STEPS):
        for name, grad in gradient(method, phi, x, y).items():
            phi[name].grad = grad
        sgd.step()
    found = adapt(method, x, y, steps=STEPS).params
    for name, value in phi.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-11, atol=1e-12)


def test_without_memory_it_is_maml_and_says_so():
    plain, lively = create("momentum", alpha=0.3), create("momentum", alpha=0.3, beta=-0.2)
    assert plain.card.starts_as_maml
    assert not lively.card.starts_as_maml
    task = batch(1)
    maml = adapt(create("maml", alpha=0.3), task.support_x[0], task.support_y[0], steps=STEPS)
    one, other = (adapt(m, task.support_x[0], task.support_y[0], steps=STEPS).params for m in (plain, lively))
    for name, value in maml.params.items():
        torch.testing.assert_close(one[name], value, rtol=1e-12, atol=1e-13)
    assert max(float((other[n] - value).detach().abs().max()) for n, value in maml.params.items()) > 1e-3


@pytest.mark.parametrize("beta", [1.0, -1.0, 2, float("nan")])
def test_a_momentum_that_never_forgets_is_refused(beta):
    with pytest.raises(BadOption, match="beta must lie between -1 and 1, got"):
        create("momentum", beta=beta)
