"""Mode products against einsum and against the Kronecker product they stand for."""

import pytest
import torch
from torch.func import vmap

from optimizers.modes import group, mode_products, modes

EINSUM = {1: "gi,gai->ga", 2: "gij,gai,gbj->gab", 3: "gijk,gai,gbj,gck->gabc"}


def factors(count, inputs, outputs):
    return [torch.randn(count, o, n, dtype=torch.float64) for n, o in zip(inputs, outputs, strict=True)]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), [((5,), (2,)), ((4, 3), (2, 6)), ((4, 3, 5), (2, 6, 1))])
def test_equals_einsum_and_kronecker(count, inputs, outputs):
    torch.manual_seed(0)
    x, made = torch.randn(count, *inputs, dtype=torch.float64), factors(count, inputs, outputs)
    bias = torch.randn(count, *outputs, dtype=torch.float64)
    expected = torch.einsum(EINSUM[len(inputs)], x, *made)
    torch.testing.assert_close(mode_products(x, made), expected)
    torch.testing.assert_close(mode_products(x, made, bias), expected + bias)
    for g in range(count):
        matrix = torch.ones(1, 1, dtype=torch.float64)
        for factor in made:
            matrix = torch.kron(matrix, factor[g])
        torch.testing.assert_close(matrix @ x[g].flatten(), expected[g].flatten())


def test_fewer_factors_leave_the_other_modes_in_front():
    torch.manual_seed(0)
    x, made = torch.randn(2, 4, 3, 5, dtype=torch.float64), factors(2, (4, 3), (6, 2))
    torch.testing.assert_close(mode_products(x, made), torch.einsum("gijk,gai,gbj->gkab", x, *made))


@pytest.mark.parametrize("count", [1, 3])
def test_vmap_over_inputs(count):
    torch.manual_seed(0)
    x, made = torch.randn(2, count, 4, 3, 5, dtype=torch.float64), factors(count, (4, 3, 5), (2, 6, 1))
    bias = torch.randn(count, 2, 6, 1, dtype=torch.float64)
    each = torch.stack([mode_products(one, made, bias) for one in x])
    torch.testing.assert_close(vmap(lambda one: mode_products(one, made, bias))(x), each)


@pytest.mark.parametrize("count", [1, 2])
def test_second_derivatives(count):
    torch.manual_seed(0)
    x = torch.randn(count, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    made = [factor.requires_grad_() for factor in factors(count, (2, 3, 2), (3, 1, 2))]
    bias = torch.randn(count, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, b, *f: mode_products(x, f, b), (x, bias, *made))


def test_groups_by_modes_and_splits_back():
    shapes = {"a": (4, 3, 3, 3), "b": (4,), "c": (4, 3, 9), "d": (), "e": (4,), "f": (2, 5)}
    groups = group(list(shapes), shapes)
    assert [g.names for g in groups] == [("a", "c"), ("b", "e"), ("d",), ("f",)]
    assert [g.modes for g in groups] == [(4, 3, 9), (4,), (1,), (2, 5)]
    values = {name: torch.randn(shape) for name, shape in shapes.items()}
    back = {}
    for g in groups:
        assert g.stack(values).shape == (len(g), *g.modes)
        back |= g.split(g.stack(values))
    for name, value in values.items():
        assert torch.equal(back[name], value)
    assert modes((2, 3, 4, 5)) == (2, 3, 20)
