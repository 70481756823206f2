"""ECML's penalty against a Jacobian formed by autograd, row by row."""

import pytest
import torch

from benchmark import networks
from benchmark.metagrad import evaluate_batch, meta_gradient
from optimizers import BadOption, create
from optimizers.ecml import without_constant
from tests.optimizers import helpers


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_basis_without_the_null_direction(ways):
    basis = without_constant(ways, torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(basis.mT @ basis, torch.eye(ways - 1, dtype=torch.float64))
    torch.testing.assert_close(basis.sum(0), torch.zeros(ways - 1, dtype=torch.float64))


def raw_gram(method, task):
    """J Jᵀ of softmax − one-hot itself, which has one null direction per example."""
    x, y = task.support_x[0], task.support_y[0]
    names = method.conditioned
    start = {n: p.detach() for n, p in method.start().items()}

    def residuals(*values):
        outputs = method.predict({**start, **dict(zip(names, values, strict=True))}, x)
        return (outputs.softmax(-1) - torch.nn.functional.one_hot(y, 3)).flatten()

    rows = torch.autograd.functional.jacobian(residuals, tuple(start[n] for n in names))
    jacobian = torch.cat([r.flatten(1) for r in rows], dim=1)
    return jacobian @ jacobian.mT


@pytest.mark.parametrize("wrt", ["head", "all"])
def test_gram_has_the_spectrum_of_the_raw_one_without_its_null_space(wrt):
    method, task = helpers.create("ecml", wrt=wrt), helpers.batch(1, shots=2)
    gram = method.gram(method.start(), task.support_x[0], task.support_y[0]).detach()
    raw = torch.linalg.eigvalsh(raw_gram(method, task))
    assert gram.shape == (12, 12)
    assert raw[:6].abs().max() < 1e-12 * raw[-1]
    torch.testing.assert_close(torch.linalg.eigvalsh(gram), raw[6:], rtol=1e-8, atol=1e-12)
    assert (len(method.conditioned) == 2) is (wrt == "head")


@pytest.mark.parametrize("adapt", ["all", "head", "body", "conv*.weight", "norm2.*"])
@pytest.mark.parametrize("network", ["cnn4", "cnn2"])
def test_the_head_is_the_networks_last_layer_whatever_adapts(network, adapt):
    net = networks.create(network, ways=3, image_shape=(1, 16, 16), channels=4)
    assert set(create("ecml", net, adapt=adapt).conditioned) == {"head.weight", "head.bias"}
    adapted = create("ecml", net, adapt=adapt, wrt="all")
    assert set(adapted.conditioned) == set(adapted.adapted)


@pytest.mark.parametrize("penalty", ["variance", "ratio"])
def test_a_support_set_fitted_to_the_last_digit_has_no_penalty(penalty):
    """J = 0: there is no eigenvalue to compare; one task that is fitted so is no divergence."""
    fitted, diverged = torch.zeros(4, 4, requires_grad=True), torch.full((4, 4), float("nan"))
    method = helpers.create("ecml", penalty=penalty)
    spread = method.spread(fitted)
    assert float(spread.detach()) == 0
    assert torch.equal(torch.autograd.grad(spread, fitted)[0], torch.zeros(4, 4))
    assert method.spread(diverged).isnan()
    for scale in (1e-30, 1e-37, 1e-40, 1e-44):
        nearly = (scale * torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))).requires_grad_()
        assert torch.autograd.grad(method.spread(nearly), nearly)[0].isfinite().all(), scale


class NormLast(torch.nn.Module):
    """A network whose last layer is a batch norm: [N, 1, 16, 16] → [N, 3]."""

    def __init__(self, *, written_out):
        super().__init__()
        self.linear, self.last = torch.nn.Linear(256, 3), torch.nn.BatchNorm1d(3, track_running_stats=False)
        self.written_out = written_out

    def forward(self, x):
        x = self.linear(x.flatten(1))
        if not self.written_out:
            return self.last(x)
        centred = x - x.mean(0)
        return self.last.weight * centred / (centred.square().mean(0) + self.last.eps).sqrt() + self.last.bias


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_right_where_the_rows_go_through_a_normalisation(strategy):
    found = {}
    for written_out in (True, False):
        torch.manual_seed(0)
        method = create("ecml", NormLast(written_out=written_out).double(), alpha=0.1)
        found[written_out] = meta_gradient(method, helpers.batch(), 2, strategy)[1]
    for name, expected in found[True].items():
        torch.testing.assert_close(found[False][name], expected, rtol=1e-8, atol=1e-12)


def test_spread_of_a_known_spectrum():
    variance, ratio = helpers.create("ecml"), helpers.create("ecml", penalty="ratio")
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    gram = turn @ torch.diag(torch.tensor([1e-9, 1e-2, 1.0, 10.0], dtype=torch.float64)) @ turn.mT
    logs = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)  # 1e-9 is below 1e-6 of the largest: dropped
    torch.testing.assert_close(variance.spread(gram), logs.var(correction=0))
    torch.testing.assert_close(ratio.spread(gram), torch.tensor(3.0, dtype=torch.float64))


def test_penalty_is_added_in_training_alone():
    tasks = helpers.batch()
    plain, conditioned = helpers.create("maml", alpha=0.1), helpers.create("ecml", alpha=0.1, gamma=0.3)
    loss, _ = meta_gradient(plain, tasks, steps=2, strategy="loop")
    penalised, _ = meta_gradient(conditioned, tasks, steps=2, strategy="loop")
    spread = [
        conditioned.spread(conditioned.gram(point, x, y))
        for x, y in zip(tasks.support_x, tasks.support_y, strict=True)
        for point in visited(plain, x, y)
    ]
    assert float(penalised - loss) == pytest.approx(0.3 * torch.stack(spread).mean().item(), abs=1e-10)
    for ours, theirs in zip(evaluate_batch(plain, tasks, 3), evaluate_batch(conditioned, tasks, 3), strict=True):
        assert torch.equal(ours, theirs)


def visited(method, x, y):
    phi = method.start()
    for _ in range(2):
        yield phi
        found = torch.autograd.grad(method.loss(phi, x, y), list(phi.values()), allow_unused=True)
        phi = {n: p if g is None else p - 0.1 * g for (n, p), g in zip(phi.items(), found, strict=True)}
        phi = {n: p.detach().requires_grad_() for n, p in phi.items()}


def test_training_lowers_the_spread():
    method, task = helpers.create("ecml", alpha=0.1, gamma=1.0), helpers.batch(1, shots=2)
    x, y = task.support_x[0], task.support_y[0]
    before = method.spread(method.gram(method.start(), x, y)).item()
    for _ in range(30):
        _, gradients = meta_gradient(method, task, steps=1, strategy="loop")
        for name, parameter in method.named_parameters():
            parameter.data -= 0.05 * gradients[name]
    assert method.spread(method.gram(method.start(), x, y)).item() < 0.8 * before


def test_regression_residuals_are_the_errors():
    torch.manual_seed(0)
    method = create("ecml", networks.create("sine-mlp").double())
    x = torch.randn(4, 1, dtype=torch.float64)
    assert torch.equal(method.residuals(method.start(), x, x), (method.predict(method.start(), x) - x).flatten())


def test_negative_gamma():
    with pytest.raises(BadOption, match="gamma must be 0 or more, got -1"):
        helpers.create("ecml", gamma=-1)
