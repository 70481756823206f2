"""Matrix-free geometry against dense matrices, and the counter-example to monotonicity."""

import pytest
import torch

import optimizers
from benchmark.verify import geometry
from optimizers.base import InnerOptimizer
from optimizers.contract.kit import perturb
from optimizers.contract.small import small_network, small_task
from optimizers.md import DualDescent


def of_matrix(matrix):
    return geometry.of_map(lambda p: {"z": matrix @ p["z"]}, {"z": torch.zeros(len(matrix), dtype=matrix.dtype)})


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_equals_dense_linear_algebra(size):
    torch.manual_seed(size)
    matrix = torch.randn(size, size, dtype=torch.float64)
    found = geometry.describe(of_matrix(matrix), iterations=80)
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    assert found.least == pytest.approx(float(eigenvalues[0]), abs=1e-10)
    assert found.greatest == pytest.approx(float(eigenvalues[-1]), abs=1e-10)
    assert found.residual < 1e-8
    assert found.condition == pytest.approx(float(torch.linalg.cond(matrix)), rel=1e-6)
    exact = float((matrix - matrix.mT).norm() / (2 * matrix.norm()))
    assert found.asymmetry == pytest.approx(exact, rel=0.5, abs=1e-12)


def test_few_iterations_find_the_ends_of_a_large_spectrum():
    torch.manual_seed(0)
    diagonal = torch.cat([torch.rand(2000, dtype=torch.float64) + 1, torch.tensor([-0.3, 9.0], dtype=torch.float64)])
    linear = geometry.of_map(lambda p: {"z": diagonal * p["z"]}, {"z": torch.zeros_like(diagonal)})
    found = geometry.describe(linear, iterations=60)
    assert found.least == pytest.approx(-0.3, abs=1e-6)
    assert found.greatest == pytest.approx(9.0, abs=1e-6)
    assert found.symmetric
    assert not found.monotone


def test_counter_example_to_monotonicity():
    """φ₁ = z₁, φ₂ = z₂ + 3 z₁ is autoregressive, invertible, of scale one, and its symmetric part has −0.5 and 2.5."""

    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.z = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, x):
            return x * self.z.sum()

    class Map(torch.nn.Module):
        def forward(self, z):
            return {"z": z["z"] + torch.stack([torch.zeros_like(z["z"][0]), 3 * z["z"][0]])}

    class Counter(DualDescent):
        def __init__(self, network):
            super().__init__(network, alpha=0.1)
            self.g = Map()

    method = Counter(Toy())
    grads = {"z": torch.tensor([0.3, -1.0], dtype=torch.float64)}
    found = geometry.describe(geometry.of_update(method, method.init_state(), grads))
    assert found.least == pytest.approx(-0.5, abs=1e-12)
    assert found.greatest == pytest.approx(2.5, abs=1e-12)
    assert not found.monotone
    assert not found.symmetric
    climbing = {"z": torch.tensor([1.0, -1.0], dtype=torch.float64)}  # the direction of −0.5: the step goes uphill
    assert geometry.cosine(method, method.init_state(), climbing) < 0


def first_step(method: InnerOptimizer):
    state, task = method.init_state(), small_task()
    point = {n: p.detach().requires_grad_() for n, p in method.params(state).items()}
    found = torch.autograd.grad(method.loss(point, task.support_x, task.support_y), list(point.values()))
    return state, dict(zip(point, found, strict=True))


@pytest.mark.parametrize("name", [n for n in optimizers.available() if optimizers.card(n).starts_as_maml])
def test_at_the_start_the_update_is_gradient_descent(name):
    method = optimizers.create(name, small_network(), alpha=0.1)
    state, grads = first_step(method)
    found = geometry.describe(geometry.of_update(method, state, grads), iterations=10)
    assert (found.least, found.greatest, found.condition) == pytest.approx((1, 1, 1), abs=1e-9)
    assert found.symmetric
    assert geometry.cosine(method, state, grads) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", optimizers.available())
def test_update_operator_equals_the_dense_jacobian(name):
    method = optimizers.create(name, small_network(), alpha=0.1)
    perturb(method, 0.1)
    state, grads = first_step(method)
    linear = geometry.of_update(method, state, grads)
    names, sizes = list(grads), [g.numel() for g in grads.values()]

    def flat(vector):
        parts = {n: p.reshape(grads[n].shape) for n, p in zip(names, vector.split(sizes), strict=True)}
        after = method.params(method.step(state, parts, 0))
        return torch.cat([after[n].flatten() for n in names])

    at = torch.cat([g.flatten() for g in grads.values()])
    dense = -torch.autograd.functional.jacobian(flat, at) / 0.1
    v = torch.randn(linear.size, dtype=torch.float64)
    torch.testing.assert_close(linear.forward(v), dense @ v, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(linear.adjoint(v), dense.mT @ v, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_convex_map_is_monotone_and_symmetric_at_any_parameters(scale, seed):
    method = optimizers.create("md-convex", small_network(), alpha=0.1)
    perturb(method, scale, seed)
    found = geometry.describe(geometry.of_update(method, *first_step(method)), iterations=150)
    assert found.monotone
    assert found.symmetric
    assert found.residual < 1e-3


def test_autoregressive_map_is_not_symmetric_and_may_climb():
    """Where a shift follows an earlier block steeply, the learned map is the counter-example in many dimensions."""
    torch.manual_seed(0)
    method = optimizers.create("md", small_network(), alpha=0.1)
    perturb(method, 0.1)
    for name, bias in method.g.named_parameters():  # with every ReLU on
        if name.endswith("bias") and not name.startswith("heads"):
            bias.data += 1.0
    for head in method.g.heads.values():
        shifts = head.weight[-1].data[len(head.bias) // 2 :]
        shifts *= 1000
    found = geometry.describe(geometry.of_update(method, *first_step(method)), iterations=60)
    assert not found.symmetric
    assert not found.monotone
    assert found.least < -0.01


def test_the_spectrum_is_that_of_the_symmetric_part():
    """Quantiles of a known spectrum: half of the eigenvalues are 1, the others spread evenly from 2 to 4."""
    values = torch.cat([torch.ones(200, dtype=torch.float64), torch.linspace(2, 4, 200, dtype=torch.float64)])
    linear = geometry.of_map(lambda p: {"z": values * p["z"]}, {"z": torch.zeros_like(values)})
    found = geometry.spectrum(linear, (0.0, 0.25, 0.6, 0.75, 1.0), iterations=60, probes=8)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[1] == pytest.approx(1, abs=1e-3)
    assert found[2:4] == pytest.approx([2.4, 3.0], abs=0.3)
    assert found[4] == pytest.approx(4, abs=1e-3)
