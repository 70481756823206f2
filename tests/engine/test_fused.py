"""The fused block against the plain formulation and against finite differences, both derivatives, in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import optimizers
from benchmark import networks
from benchmark.engine import fused, fused_kernels
from benchmark.metagrad import Task, meta_gradient


def plain(x, weight, gamma, beta):
    y = F.batch_norm(F.conv2d(x, weight, None, padding=1), None, None, gamma, beta, training=True)
    return F.max_pool2d(F.relu(y), 2)


def inputs_of(shape, channels=5, with_x=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (shape, (channels, shape[1], 3, 3), (channels,), (channels,))
    drawn = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    drawn[2][:2] = torch.tensor([0.7, -0.7])  # both signs of γ: pooling must follow the sign
    return [each.requires_grad_(with_x or i > 0) for i, each in enumerate(drawn)]


def both_derivatives(block, inputs, which):
    """The block's value, its gradients, and the derivative of a function of the chosen gradients and of the block."""
    wanted = [each for each in inputs if each.requires_grad]
    out = block(*inputs)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    first = torch.autograd.grad((weights * out).square().sum() + out.sum(), wanted, create_graph=True)
    chosen = [first[i] for i in which if i < len(first)]
    outer = sum((each * torch.cos(torch.arange(each.numel()).double()).view_as(each)).sum() for each in chosen)
    outer = outer + (block(*[1.1 * each for each in inputs]) ** 3).sum()
    return [out, *first, *torch.autograd.grad(outer, wanted)]


@pytest.mark.parametrize("which", [(0, 1, 2, 3), (0,), (1,), (2,), (3,)], ids=str)
@pytest.mark.parametrize("with_x", [True, False])
@pytest.mark.parametrize(
    ("shape", "piece_bytes", "few"),
    [
        ((6, 3, 9, 11), None, True),
        ((6, 3, 9, 11), None, False),
        ((6, 1, 8, 8), None, True),
        ((6, 1, 8, 8), None, False),
        ((6, 4, 12, 12), 6000, True),
        ((7, 2, 8, 8), 6000, False),
    ],
    ids=["odd sizes", "as if large", "one channel", "one channel, as if large", "one image a piece", "uneven pieces"],
)
def test_both_derivatives_equal_plain(shape, piece_bytes, few, with_x, which, monkeypatch):
    if not few:
        monkeypatch.setattr(fused_kernels, "FEW_VALUES", 0)
        monkeypatch.setattr(fused_kernels, "FEW_ROWS", 0)
    if piece_bytes:
        monkeypatch.setattr(fused_kernels, "PIECE_BYTES", piece_bytes)
    inputs = inputs_of(shape, with_x=with_x)
    expected = both_derivatives(plain, inputs, which)
    found = both_derivatives(fused.conv_norm_relu_pool, inputs, which)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_both_derivatives_equal_finite_differences():
    inputs = inputs_of((4, 2, 4, 4), channels=2)
    assert gradcheck(fused.conv_norm_relu_pool, inputs, eps=1e-6, atol=1e-7)
    assert gradgradcheck(fused.conv_norm_relu_pool, inputs, eps=1e-6, atol=1e-6)


def test_equal_maxima_choose_as_plain_does():
    """Flat regions, as in drawn characters, make all four values of a window equal; one of them is chosen, not all."""
    inputs = inputs_of((4, 1, 8, 8), with_x=False)
    with torch.no_grad():
        inputs[0][:, :, :, 3:] = 0.5
    for a, b in zip(
        both_derivatives(fused.conv_norm_relu_pool, inputs, (0, 1, 2)),
        both_derivatives(plain, inputs, (0, 1, 2)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_without_a_graph_the_convolution_is_not_kept():
    inputs = inputs_of((6, 3, 8, 8))
    with torch.no_grad():
        torch.testing.assert_close(fused.conv_norm_relu_pool(*inputs), plain(*inputs), rtol=1e-12, atol=1e-12)
        assert len(fused_kernels.forward(*inputs, keep=False)[1]) == 0
        assert len(fused_kernels.forward(*inputs, keep=True)[1]) == 1


def test_under_function_transforms():
    """torch.func.grad and vmap, nested as methods nest them."""
    x, weight, gamma, beta = (each.detach() for each in inputs_of((6, 3, 8, 8)))
    weights = torch.stack([weight, 0.5 * weight, weight.flip(0)])

    def inner(block):
        def loss(w):
            return block(x, w, gamma, beta).square().sum()

        def norm(w):
            return torch.func.grad(loss)(w).square().sum()

        return torch.func.vmap(torch.func.grad(norm))(weights)

    torch.testing.assert_close(inner(fused.conv_norm_relu_pool), inner(plain), rtol=1e-9, atol=1e-9)


def test_batched_gradients():
    inputs = inputs_of((6, 3, 8, 8))
    found = {}
    for name, block in (("fused", fused.conv_norm_relu_pool), ("plain", plain)):
        out = block(*inputs).sum((1, 2, 3))
        found[name] = torch.autograd.grad(out, inputs, torch.eye(6).double(), is_grads_batched=True)
    for a, b in zip(found["fused"], found["plain"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_float32_is_as_accurate_as_plain():
    inputs = inputs_of((20, 3, 20, 20), channels=8)
    with torch.no_grad():
        inputs[0].add_(3.0)  # a mean far from zero: the variance must not be a difference of large numbers
    exact = [each.detach() for each in both_derivatives(plain, inputs, (0, 1, 2, 3))]
    single = [each.detach().float().requires_grad_() for each in inputs]
    errors = {}
    for name, block in (("fused", fused.conv_norm_relu_pool), ("plain", plain)):
        found = [each.detach() for each in both_derivatives(block, single, (0, 1, 2, 3))]
        errors[name] = max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))
    assert errors["fused"] < 3 * errors["plain"] + 1e-6


def test_disabled_is_for_the_block_alone():
    x = torch.zeros(1, 1, 4, 4)
    assert fused.usable(x, 4)
    with fused.disabled():
        assert not fused.usable(x, 4)
    assert fused.usable(x, 4)
    assert not fused.usable(x.to(torch.bfloat16), 4)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_meta_gradient_of_the_narrowest_networks(channels, image_channels):
    """Where layouts are ambiguous, with one channel, the network takes the plain formulation."""
    torch.manual_seed(0)
    network = networks.create("cnn4", 3, (image_channels, 16, 16), channels).double()
    method = optimizers.create("maml", network, alpha=0.1)
    x, y = torch.rand(1, 9, image_channels, 16, 16, dtype=torch.float64), torch.arange(3)
    batch = Task(x[:, :3], y[None], x[:, 3:], y.repeat(2)[None])
    _, found = meta_gradient(method, batch, 2, "loop")
    with fused.disabled(primitives=True):
        _, expected = meta_gradient(method, batch, 2, "loop")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
