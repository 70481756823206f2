"""Diagonal and Kronecker preconditioners, and MetaKFO's adapting transform, against formulas of their own."""

import pytest
import torch

from benchmark.adapt import adapt
from optimizers import BadOption
from optimizers.contract.kit import perturb
from tests.optimizers.helpers import batch, create


def gradients(method, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in method.start().items()}


def test_metasgd_forms():
    log, free = create("metasgd", alpha=0.1), create("metasgd", alpha=0.1, form="free")
    for method in (log, free):
        assert all(torch.allclose(r, torch.full_like(r, 0.1), rtol=1e-15) for r in method.rates().values())
    perturb(log, 0.5)
    perturb(free, 0.5)
    assert min(float(r.detach().min()) for r in log.rates().values()) > 0
    assert min(float(r.detach().min()) for r in free.rates().values()) < 0
    for method in (log, free):
        grads, start = gradients(method), method.start()
        moved = method.params(method.step(method.init_state(), grads, 0))
        for name, rate in method.rates().items():
            assert torch.equal(moved[name], start[name] - rate * grads[name])
    with pytest.raises(BadOption, match="form='exp'"):
        create("metasgd", form="exp")


def test_metacurvature_is_three_n_mode_products():
    method = create("metacurvature", alpha=0.1, inputs=2)
    perturb(method, 0.3)
    grads, start = gradients(method), method.start()
    moved = method.params(method.step(method.init_state(), grads, 0))
    for members, factors in zip(method.groups, method.factors, strict=True):
        for index, name in enumerate(members.names):
            g, f = grads[name], [factor[index] for factor in factors]
            if g.dim() == 4:  # [C_out, C_in, 3, 3]
                u = torch.einsum("oikl,po->pikl", g, f[0])
                u = torch.einsum("pikl,qi->pqkl", u, f[1])
                u = torch.einsum("pqf,hf->pqh", u.flatten(2), f[2]).reshape(g.shape)
            elif g.dim() == 2:
                u = f[0] @ g @ f[1].mT
            else:
                u = f[0] * g
            torch.testing.assert_close(moved[name], start[name] - 0.1 * u, rtol=1e-12, atol=1e-12)


def transformed(method, factors, name, g):
    """(LᵀL) X (RᵀR) (plus the ReLU network) on one tensor, with X as [batch, rows, columns]."""
    index, members = next((i, m) for i, m in enumerate(method.groups) if name in m.names)
    j = members.names.index(name)
    f = {key.partition("-")[2]: value[j] for key, value in factors.items() if key.startswith(f"{index}-")}
    x = g.flatten(2) if g.dim() == 4 else g.reshape(1, *g.shape) if g.dim() == 2 else g.reshape(1, -1, 1)
    u = (f["L"].mT @ f["L"]) @ x @ (f["R"].mT @ f["R"])
    if "L1" in f:
        hidden = (f["L1"] @ x @ f["R1"].mT).relu()
        hidden = (f["L2"] @ hidden @ f["R2"].mT).relu()
        u = u + f["L3"] @ hidden @ f["R3"].mT
    return u.reshape(g.shape)


@pytest.mark.parametrize("transform", ["linear", "nonlinear"])
def test_metakfo_transform(transform):
    method = create("metakfo", inputs=2, transform=transform)
    perturb(method, 0.3)
    grads, factors = gradients(method), dict(method.factors)
    for name, u in method.apply_transform(factors, grads).items():
        expected = transformed(method, factors, name, grads[name])
        torch.testing.assert_close(u, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("transform", ["linear", "nonlinear"])
def test_metakfo_adapts_by_the_gradient_of_the_loss_through_the_last_update(transform):
    """Three steps by hand: ∂L_S/∂A comes from autograd through the network itself, not from a product of gradients."""
    alpha, task = 0.3, batch(1)
    method = create("metakfo", alpha=alpha, transform=transform)
    perturb(method, 0.1)
    x, y = task.support_x[0], task.support_y[0]
    phi = {n: p.detach() for n, p in method.start().items()}
    factors = {n: p.detach() for n, p in method.factors.items()}
    before, last = phi, None
    for _ in range(3):
        if last is not None:  # φ as a function of the A that made it
            free = {n: f.clone().requires_grad_() for n, f in factors.items()}
            moved = {n: before[n] - alpha * transformed(method, free, n, last[n]) for n in before}
            pull = torch.autograd.grad(method.loss(moved, x, y), list(free.values()), allow_unused=True)
            factors = {n: f if g is None else f - alpha * g for (n, f), g in zip(factors.items(), pull, strict=True)}
        point = {n: p.clone().requires_grad_() for n, p in phi.items()}
        found = torch.autograd.grad(method.loss(point, x, y), list(point.values()), allow_unused=True)
        last = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(phi.items(), found, strict=True)}
        before = phi
        phi = {n: p - alpha * transformed(method, factors, n, last[n]).detach() for n, p in phi.items()}
    walked = adapt(method, x, y, steps=3)
    for name, value in phi.items():
        torch.testing.assert_close(walked.params[name], value, rtol=1e-10, atol=1e-12)
    moved = max(float((walked.state["transform"][n] - p).detach().abs().max()) for n, p in method.factors.items())
    assert moved > 1e-4  # the transform did adapt


def test_metakfo_fixed_transform_keeps_it():
    method, task = create("metakfo", alpha=0.3, adapting=False), batch(1)
    walked = adapt(method, task.support_x[0], task.support_y[0], steps=3)
    assert all(value is method.factors[n] for n, value in walked.state["transform"].items())
