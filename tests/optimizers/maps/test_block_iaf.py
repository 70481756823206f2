"""The blockIAF against an implementation tensor by tensor, and against what its equations promise."""

import pytest
import torch
from torch import nn

from benchmark import networks
from optimizers.contract.kit import perturb
from optimizers.maps.block_iaf import BlockIAF
from optimizers.maps.stacked_conditioner import pyramid
from optimizers.tensors.modes import modes

SHAPES = {
    "conv1.weight": (6, 2, 3, 3),
    "conv1.bias": (6,),
    "conv2.weight": (6, 6, 3, 3),
    "conv2.bias": (6,),
    "conv3.weight": (6, 6, 3, 3),
    "conv3.bias": (6,),
    "head.weight": (3, 8),
    "head.bias": (3,),
}
BLOCKS = [[n for n in SHAPES if n.startswith(block)] for block in ("conv1", "conv2", "conv3", "head")]


def points(shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: 0.5 * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}


def learned(sigma="exp", shapes=SHAPES, blocks=BLOCKS, scale=0.2):
    torch.manual_seed(0)
    g = BlockIAF(points(shapes), blocks, sigma=sigma)
    perturb(g, scale)
    for name, bias in g.named_parameters():  # no ReLU is off for good
        if name.endswith("bias") and not name.startswith("heads"):
            bias.data += 1.0
    return g


def find(g, modules, name, names_of):
    """The module and the place in its stack that belong to the tensor `name`; `names_of` picks a group's members."""
    for i, module in modules.items():
        names = [n for n in g.groups[int(i)].names if n in names_of]
        if name in names:
            return module, names.index(name)
    raise KeyError(name)


def layer(module, index, x):
    """One mode-product layer of one tensor, by einsum."""
    factors = [w[index] for w in module.weight]
    spec = {1: "i,ai->a", 2: "ij,ai,bj->ab", 3: "ijk,ai,bj,ck->abc"}[x.dim()]
    return torch.einsum(spec, x, *factors) + module.bias[index]


def reference(g, z, sigma=torch.exp):
    """φ tensor by tensor: encoders, link, ReLU, decoders, heads."""
    codes, phi = {}, {}
    earlier = {name for block in g.blocks[:-1] for name in block}
    later = {name for block in g.blocks[1:] for name in block}
    for i, block in enumerate(g.blocks):
        if i == 0:
            for name in block:
                a, j = find(g, g.first_scale, name, block)
                m, _ = find(g, g.first_shift, name, block)
                phi[name] = z[name] * sigma(a[j]).reshape(z[name].shape) + m[j].reshape(z[name].shape)
        else:
            known = torch.cat([codes[name].flatten() for before in g.blocks[:i] for name in before])
            inputs = torch.mv(g.links[i - 1].weight, known) + g.links[i - 1].bias
            for name in block:
                shape = modes(z[name].shape)
                size = torch.Size(pyramid(shape)[-1]).numel()
                x, inputs = inputs[:size].reshape(pyramid(shape)[-1]).clamp(min=0), inputs[size:]
                decoder, j = find(g, g.decoders, name, later)
                for module in decoder.layers:
                    x = layer(module, j, x).clamp(min=0)
                heads, _ = find(g, g.heads, name, later)
                a = layer(heads, j, x).reshape(z[name].shape)
                m = layer(heads, j + len(heads.bias) // 2, x).reshape(z[name].shape)
                phi[name] = z[name] * sigma(a) + m
        if i < len(g.blocks) - 1:
            for name in block:
                x = z[name].reshape(modes(z[name].shape))
                encoder, j = find(g, g.encoders, name, earlier)
                for module in encoder.layers:
                    x = layer(module, j, x).clamp(min=0)
                codes[name] = x
    return phi


@pytest.mark.parametrize(("name", "sigma"), [("exp", torch.exp), ("sigmoid", lambda a: 2 / (1 + (-a).exp()))])
def test_equals_the_equations_tensor_by_tensor(name, sigma):
    g, z = learned(name), points(seed=3)
    phi = g(z)
    assert list(phi) == list(z)
    for key, expected in reference(g, z, sigma).items():
        torch.testing.assert_close(phi[key], expected, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(expected, z[key], atol=1e-2)  # the map under test is far from the identity


def test_encoder_shapes_are_the_released_ones():
    assert pyramid((64, 64, 9)) == [(64, 64, 9), (32, 32, 4), (16, 16, 2), (8, 8, 1)]
    assert pyramid((64,)) == [(64,), (32,), (16,), (8,)]
    assert pyramid((5, 1600)) == [(5, 1600), (2, 800), (1, 400), (1, 200)]
    g = BlockIAF({"a": torch.zeros(64, 64, 3, 3), "b": torch.zeros(5, 1600)}, [["a"], ["b"]])
    assert [tuple(m.bias.shape[1:]) for m in g.encoders["0"].layers] == [(32, 32, 4), (16, 16, 2), (8, 8, 1)]
    assert [tuple(m.bias.shape[1:]) for m in g.decoders["1"].layers] == [(1, 400), (2, 800)]
    assert tuple(g.links[0].weight.shape) == (200, 64)


@pytest.mark.parametrize("sigma", ["exp", "sigmoid"])
@pytest.mark.parametrize("zero", ["last", "all"])
def test_exactly_the_identity_at_the_start(sigma, zero):
    torch.manual_seed(0)
    g, z = BlockIAF(points(), BLOCKS, sigma=sigma, zero=zero), points(seed=3)
    assert all(torch.equal(value, z[name]) for name, value in g(z).items())


def flat_jacobian(g, z):
    names, sizes = list(z), [v.numel() for v in z.values()]

    def flat(vector):
        parts = {n: p.reshape(z[n].shape) for n, p in zip(names, vector.split(sizes), strict=True)}
        return torch.cat([g(parts)[n].flatten() for n in names])

    vector = torch.cat([v.flatten() for v in z.values()])
    return torch.autograd.functional.jacobian(flat, vector), sizes


@pytest.mark.parametrize("sigma", ["exp", "sigmoid"])
def test_jacobian_is_block_triangular_with_positive_diagonal(sigma):
    shapes = {"a.weight": (3, 2, 2), "a.bias": (3,), "b.weight": (3, 3, 2), "c.weight": (2, 4), "c.bias": (2,)}
    blocks = [["a.weight", "a.bias"], ["b.weight"], ["c.weight", "c.bias"]]
    g, z = learned(sigma, shapes, blocks, scale=0.5), points(shapes, seed=3)
    jacobian, sizes = flat_jacobian(g, z)
    block = torch.repeat_interleave(torch.tensor([0, 0, 1, 2, 2]), torch.tensor(sizes))
    later = block[:, None] < block[None, :]  # φ_i must not depend on z_j of a later block
    same = (block[:, None] == block[None, :]) & ~torch.eye(len(block), dtype=torch.bool)
    earlier = block[:, None] > block[None, :]
    assert not jacobian[later].any()
    assert not jacobian[same].any()
    assert jacobian[earlier].abs().max() > 1e-4  # and it does depend on z of earlier ones
    diagonal = jacobian.diagonal()
    assert (diagonal > 0).all()
    scale, _ = g.affine(z)
    torch.testing.assert_close(diagonal, torch.cat([scale[n].flatten() for n in z]))
    if sigma == "sigmoid":
        assert diagonal.max() < 2
    # triangular and not block-diagonal: not symmetric, so the gradient of nothing
    assert (jacobian - jacobian.mT).abs().max() > 1e-4


@pytest.mark.parametrize("sigma", ["exp", "sigmoid"])
def test_is_invertible(sigma):
    g, z = learned(sigma), points(seed=3)
    for name, value in g.inverse(g(z)).items():
        torch.testing.assert_close(value, z[name], rtol=1e-9, atol=1e-9)


def test_first_derivatives():
    shapes = {"a": (3, 2, 2), "b": (3, 3, 2), "c": (2, 3)}
    g, z = learned("exp", shapes, [["a"], ["b"], ["c"]]), points(shapes, seed=3)
    inputs = [v.requires_grad_() for v in (*z.values(), *(p.detach() for p in g.parameters()))]
    names = [n for n, _ in g.named_parameters()]

    def evaluate(*values):
        theta = dict(zip(names, values[len(z) :], strict=True))
        return tuple(torch.func.functional_call(g, theta, (dict(zip(z, values, strict=False)),)).values())

    assert torch.autograd.gradcheck(evaluate, inputs, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize(("channels", "pixels", "share"), [(32, 28, 0.145), (32, 32, 0.276), (64, 84, 0.895)])
def test_share_of_the_released_map_that_products_of_zeros_keep_from_training(channels, pixels, share):
    """As the card of md-released has it: parameters with no gradient at the start or after three steps, no ReLU off."""
    torch.manual_seed(0)
    network = networks.create("cnn4", 5, (1 if pixels == 28 else 3, pixels, pixels), channels)
    start = {name: value.detach().abs() for name, value in network.named_parameters()}
    g = BlockIAF(start, network.blocks(), zero="all")
    for name, parameter in g.named_parameters():  # with z ≥ 0, no ReLU is off
        if name.startswith(("encoders", "decoders", "links")):
            parameter.data = parameter.data.abs() + 0.1 * name.endswith("bias")
    seen = [torch.zeros(p.shape, dtype=torch.bool) for p in g.parameters()]
    for _ in range(4):
        phi = g({name: z + 0.01 * torch.rand_like(z) for name, z in start.items()})
        loss = torch.stack([(value * torch.randn_like(value)).sum() for value in phi.values()]).sum()
        found = torch.autograd.grad(loss, list(g.parameters()))
        for parameter, mark, gradient in zip(g.parameters(), seen, found, strict=True):
            mark |= gradient != 0
            parameter.data -= 1e-3 * gradient.sign()
    dead = sum(int((~mark).sum()) for mark in seen)
    assert dead / sum(mark.numel() for mark in seen) == pytest.approx(share, abs=0.001)


def test_one_block_is_elementwise_and_has_no_conditioner():
    g = BlockIAF({"w": torch.ones(2, 3), "b": torch.ones(2)}, [["w", "b"]])
    assert sum(p.numel() for p in g.parameters()) == 2 * 8
    nn.init.constant_(g.first_scale["0"], 1.0)
    torch.testing.assert_close(g({"w": torch.ones(2, 3), "b": torch.ones(2)})["w"], torch.full((2, 3), 2.7182817))
