"""Mode products and chains of them against einsum, and against the Kronecker product they stand for."""

import itertools

import pytest
import torch
from torch.func import grad, vmap

from optimizers.tensors.products import Layer, chains, mode_products

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


def chain(x, layers):
    """The second of two chains that go through together."""
    return chains([x + 1, x], [layers[:2], layers])[1]


def layered(x, layers):
    """:func:`chains` by einsum: a layer that is twice as high reads its input twice."""
    for made, bias, relu, transposed in layers:
        made = [factor.mT for factor in made] if transposed else made
        x = torch.cat([x] * (len(made[0]) // len(x)))
        x = torch.einsum(EINSUM[len(made)], x, *made) + (0 if bias is None else bias)
        x = x.clamp(min=0) if relu else x
    return x


def example(count):
    """An input and three layers, the last one twice as high, with their tensors in one list."""
    torch.manual_seed(0)
    sizes = [(4, 3, 5), (2, 4, 3), (3, 2, 1), (2, 3, 4)]
    layers = []
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        high = count * (2 if k == 2 else 1)
        bias = None if k == 1 else torch.randn(high, *outputs, dtype=torch.float64)
        made = factors(high, outputs, inputs) if k == 1 else factors(high, inputs, outputs)
        layers.append(Layer(made, bias, relu=k < 2, transposed=k == 1))
    return torch.randn(count, *sizes[0], dtype=torch.float64), layers


def with_tensors(layers, tensors):
    """`layers` with their tensors replaced, in order."""
    left = iter(tensors)
    return [
        y._replace(factors=[next(left) for _ in y.factors], bias=None if y.bias is None else next(left)) for y in layers
    ]


def tensors_of(layers):
    return [t for y in layers for t in (*y.factors, y.bias) if t is not None]


@pytest.mark.parametrize("count", [1, 3])
def test_a_chain_is_its_layers_one_after_another(count):
    x, layers = example(count)
    expected = layered(x, layers)
    torch.testing.assert_close(chain(x, layers), expected)
    with torch.no_grad():
        torch.testing.assert_close(chain(x, layers), expected)
    first, second = chains([x, 2 * x], [layers, layers[:1]])
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, layered(2 * x, layers[:1]))


@pytest.mark.parametrize("count", [1, 2])
def test_derivatives_of_a_chain(count):
    x, layers = example(count)
    inputs = [t.requires_grad_() for t in (x, *tensors_of(layers))]

    def evaluate(x, *tensors):
        return chain(x, with_tensors(layers, tensors))

    assert torch.autograd.gradcheck(evaluate, inputs)
    assert torch.autograd.gradgradcheck(evaluate, inputs)


@pytest.mark.parametrize("count", [1, 2])
def test_a_chain_under_function_transforms(count):
    x, layers = example(count)
    tensors = tensors_of(layers)
    many = torch.randn(3, *x.shape, dtype=torch.float64)

    def energy(how, x, tensors):
        return how(x, with_tensors(layers, tensors)).square().sum()

    found, expected = (
        vmap(grad(lambda x, t, how=how: energy(how, x, t), argnums=(0, 1)), in_dims=(0, None))(many, tensors)
        for how in (chain, layered)
    )
    torch.testing.assert_close(found, expected)

    def norm(how):  # a derivative of a derivative
        return grad(lambda t: grad(lambda x: energy(how, x, t))(x).square().sum())(tensors)

    torch.testing.assert_close(norm(chain), norm(layered))
