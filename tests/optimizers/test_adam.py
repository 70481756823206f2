"""Inner Adam against torch's and against the paper's sums; its derivatives where gradients are exactly zero."""

import pytest
import torch
from torch import nn

import optimizers
from benchmark.adapt import adapt, support_gradient
from benchmark.metagrad import Task, meta_gradient
from optimizers import BadOption
from optimizers.adam import square_root
from optimizers.contract.kit import finite_differences, perturb
from tests.engine.helpers import assert_same_gradient
from tests.optimizers.helpers import batch, create

STEPS = 4


def test_torchs_adam():
    method, task = create("adam", alpha=0.02, share=0.5, epsilon=1e-3), batch(1)
    x, y = task.support_x[0], task.support_y[0]
    phi = {name: value.detach().clone().requires_grad_() for name, value in method.start().items()}
    adam = torch.optim.Adam(phi.values(), lr=0.01, eps=1e-3)
    for _ in range(STEPS):
        for name, grad in support_gradient(method, phi, x, y, create_graph=False)[1].items():
            phi[name].grad = grad
        adam.step()
    found = adapt(method, x, y, steps=STEPS).params
    for name, value in phi.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-10, atol=1e-12)


def test_the_papers_means_as_weighted_sums():
    """m̂_k = Σ_i (1 − β₁) β₁^{k−i} G_i / Σ_i (1 − β₁) β₁^{k−i}, and v̂_k likewise of G²: means, by definition."""
    method, task = create("adam", alpha=0.1, beta1=0.6, beta2=0.7, epsilon=1e-3), batch(1)
    perturb(method, 0.3)
    x, y = task.support_x[0], task.support_y[0]
    phi, seen = {name: value.detach() for name, value in method.start().items()}, []
    rate = method.log_rate.detach().exp()
    decay = [logit.detach().sigmoid() for logit in (method.logit1, method.logit2)]
    for k in range(STEPS):
        seen.append(support_gradient(method, phi, x, y, create_graph=False)[1])
        for i, name in enumerate(method.adapted):
            history = torch.stack([grads[name] for grads in seen])
            means = []
            for beta, values in zip(decay, (history, history**2), strict=True):
                weights = torch.stack([beta[i] ** (k - j) for j in range(k + 1)])
                means.append(torch.tensordot(weights, values, dims=1) / weights.sum())
            phi = phi | {name: phi[name] - rate[i] * means[0] / (means[1] ** 0.5 + 1e-3)}
    found = adapt(method, x, y, steps=STEPS).params
    for name, value in phi.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


class Off(nn.Module):
    """Regression whose second hidden unit is off for every input, so that its gradients are exactly zero."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(1, 2), nn.Linear(2, 1)
        self.hidden.weight.data = torch.tensor([[0.7], [0.2]], dtype=torch.float64)
        self.hidden.bias.data = torch.tensor([0.1, -5.0], dtype=torch.float64)
        self.head.to(torch.float64)

    def forward(self, x):
        return self.head(self.hidden(x).relu())

    def loss(self, outputs, targets):
        return (outputs - targets).square().mean()


def off_task():
    x = torch.linspace(0.1, 1.0, 12, dtype=torch.float64).reshape(2, 6, 1)
    return Task(x[:1], x[:1].sin(), x[1:], x[1:].sin())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_second_derivatives_are_finite_where_gradients_are_zero(dtype):
    torch.manual_seed(0)
    method = optimizers.create("adam", Off(), alpha=0.1).to(dtype)
    task = Task(*(part.to(dtype) for part in vars(off_task()).values()))
    grads = support_gradient(method, method.start(), task.support_x[0], task.support_y[0], create_graph=False)[1]
    assert (grads["hidden.weight"][1] == 0).all()
    assert grads["hidden.weight"][0].all()
    expected = meta_gradient(method, task, 3, "loop")
    assert all(g.isfinite().all() for g in expected[1].values())
    for strategy, recompute in (("loop", True), ("vmap", False), ("vmap", True)):
        found = meta_gradient(method, task, 3, strategy, recompute)
        assert_same_gradient(found, expected, rtol=1e-10 if dtype == torch.float64 else 1e-4)
    if dtype == torch.float64:
        pairs = finite_differences(method, expected[1], lambda: meta_gradient(method, task, 3, "loop")[0])
        for name, (exact, numeric) in pairs.items():
            assert exact == pytest.approx(numeric, rel=1e-6, abs=1e-9), name


def test_the_derivative_of_a_first_step_at_a_zero_gradient():
    """−a G / (|G| + ε) has the derivative −a/ε at G = 0, the limit of the one beside it."""
    method = optimizers.create("adam", nn.Linear(1, 1, bias=False).double(), alpha=1.0, epsilon=0.25)

    def moved(gradient):
        state = {name: {"weight": torch.zeros(1, 1, dtype=torch.float64)} for name in ("phi", "mean", "square")}
        return method.step(state, {"weight": gradient.reshape(1, 1)}, 0)["phi"]["weight"].sum()

    zero, near = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.0, 1e-9))
    at_zero, beside = (torch.autograd.grad(moved(point), point)[0].item() for point in (zero, near))
    assert at_zero == pytest.approx(-0.1 / 0.25)
    assert beside == pytest.approx(at_zero, rel=1e-6)


def test_the_root_itself():
    value = torch.tensor([0.0, 1e-40, 4.0], requires_grad=True)
    root = square_root(value)
    assert root.tolist() == value.detach().sqrt().tolist()
    slope = torch.autograd.grad(root.sum(), value, create_graph=True)[0]
    assert slope.isfinite().all()
    assert [slope[0].item(), slope[2].item()] == [0.0, 0.25]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"beta1": 1.0}, "beta1 must lie between 0 and 1, got 1.0"),
        ({"beta2": 0}, "beta2 must lie between 0 and 1, got 0"),
        ({"epsilon": 0.0}, "epsilon must be positive, got 0.0"),
        ({"share": float("nan")}, "share must be positive, got nan"),
    ],
)
def test_bad_values(option, message):
    with pytest.raises(BadOption, match=message):
        create("adam", **option)
