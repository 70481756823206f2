"""The mirror map that keeps its promise: gradient of a strongly convex function at any parameters."""

import hypothesis
import torch
from hypothesis import strategies as st

from optimizers.contract.kit import perturb
from optimizers.counting import multiply_adds
from optimizers.maps.convex import ConvexMap
from tests.optimizers.maps.test_block_iaf import flat_jacobian

SHAPES = {"conv.weight": (3, 2, 2, 2), "conv.bias": (3,), "more.weight": (3, 2, 4), "head.weight": (2, 5), "b": ()}


def learned(scale, seed=0):
    torch.manual_seed(seed)
    z = {n: torch.randn(s, dtype=torch.float64) for n, s in SHAPES.items()}
    g = ConvexMap(z)
    perturb(g, scale, seed)
    return g, z


def test_identity_at_the_start():
    torch.manual_seed(0)
    z = {n: torch.randn(s) for n, s in SHAPES.items()}
    assert all(torch.equal(value, z[name]) for name, value in ConvexMap(z)(z).items())


def test_is_the_gradient_of_its_potential():
    g, z = learned(0.5)
    z = {n: v.requires_grad_() for n, v in z.items()}
    gradient = torch.autograd.grad(g.potential(z), list(z.values()))
    for (name, value), expected in zip(g(z).items(), gradient, strict=True):
        assert value.shape == z[name].shape
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(scale=st.floats(0.01, 3.0), seed=st.integers(0, 1000))
def test_jacobian_is_symmetric_and_at_least_the_diagonal(scale, seed):
    g, z = learned(scale, seed)
    jacobian, _ = flat_jacobian(g, z)
    size = float(jacobian.abs().max())
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=0, atol=1e-12 * size)
    least = torch.cat([d.exp().flatten() for d in g.log_diagonal]).min().item()
    assert float(torch.linalg.eigvalsh(jacobian).min()) >= least - 1e-9 * size


def test_layers_are_coupled():
    g, z = learned(0.5)
    jacobian, sizes = flat_jacobian(g, z)
    first, last = sizes[0], sum(sizes[:3])
    assert jacobian[:first, last:].abs().max() > 1e-3  # the first layer's φ moves with the classifier's z


def test_strictly_monotone_between_far_points():
    g, _ = learned(2.0)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        a, b = (
            {n: 3 * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in SHAPES.items()} for _ in "ab"
        )
        inner = sum(((g(a)[n] - g(b)[n]) * (a[n] - b[n])).sum().item() for n in SHAPES)
        assert inner > 0


def test_cost_is_linear_in_d():
    def cost(channels):
        z = {"w": torch.zeros(channels, channels, 9), "v": torch.zeros(5, 25 * channels)}
        g = ConvexMap(z)
        return multiply_adds(lambda: g(z))

    per_parameter = [cost(c) / (9 * c * c + 125 * c) for c in (32, 64, 128)]
    assert max(per_parameter) == per_parameter[0] < 30  # bounded: it even falls with the width
