"""`md-released` against the released blockIAF, written out tensor by tensor from its description in the paper's code.

The description: every block's tensors are scaled and shifted by what the codes of all earlier blocks say. An encoder is
three Kronecker-linear layers, each with a ReLU behind it, that halve every mode (floor, at least 1); the codes of all
earlier blocks go through one dense linear layer; a decoder is ReLU, layer, ReLU, layer, ReLU and two heads, log-scale
and shift. Matrices start uniform in ±1/√n, their biases at 0, heads at 0, the linear layers as torch's. Block 1 has an
elementwise exp(a) and b, 0 at the start.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import optimizers
from benchmark import networks
from benchmark.metagrad import Task, meta_gradient
from optimizers.errors import Misfit
from optimizers.maps.block_iaf import BlockIAF, load_released


class Kronecker(nn.Module):
    """One matrix [out, in] per mode, applied mode by mode, and a bias of the output's shape."""

    def __init__(self, inputs, outputs, *, zero=False):
        super().__init__()
        self.weights = nn.ParameterList(
            torch.zeros(o, n) if zero else (2 * torch.rand(o, n) - 1) / math.sqrt(n)
            for n, o in zip(inputs, outputs, strict=True)
        )
        self.bias = nn.Parameter(torch.zeros(*outputs))

    def forward(self, x):
        for mode, matrix in enumerate(self.weights):
            x = torch.tensordot(matrix, x, dims=([1], [mode])).movedim(0, mode)
        return x + self.bias


def sizes(shape):
    """The modes of a tensor of this shape, and what three halvings leave of them."""
    three = [*shape[:2], math.prod(shape[2:])] if len(shape) == 4 else list(shape)
    chain = [three]
    for _ in range(3):
        chain.append([max(1, n // 2) for n in chain[-1]])
    return chain


class Flat(nn.Module):
    def forward(self, x):
        return x.flatten(2)


class Coder(nn.Module):
    def __init__(self, shape):
        super().__init__()
        a, b, c, d = sizes(shape)
        before = [Flat()] if len(shape) == 4 else []
        layers = [Kronecker(a, b), nn.ReLU(), Kronecker(b, c), nn.ReLU(), Kronecker(c, d), nn.ReLU()]
        self.mlp = nn.Sequential(*before, *layers)


class Reader(nn.Module):
    def __init__(self, shape):
        super().__init__()
        a, b, c, d = sizes(shape)
        self.mlp = nn.Sequential(nn.ReLU(), Kronecker(d, c), nn.ReLU(), Kronecker(c, b), nn.ReLU())
        self.log_scale = nn.Sequential(Kronecker(b, a, zero=True))
        self.shift = nn.Sequential(Kronecker(b, a, zero=True))


class First(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.log_weight, self.bias = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.zeros(count))


class Released(nn.Module):
    """The map as described; its state dict has the released keys."""

    def __init__(self, shapes, blocks):
        super().__init__()
        self.shapes, self.blocks = shapes, blocks
        plain = {name: name.replace(".", "_") for name in shapes}
        coded = [name for block in blocks[:-1] for name in block]
        read = [name for block in blocks[1:] for name in block]
        self.layer_encoders = nn.ModuleDict({plain[n]: Coder(shapes[n]) for n in coded})
        self.layer_decoders = nn.ModuleDict({plain[n]: Reader(shapes[n]) for n in read})
        self.keys = ["-".join(plain[n] for n in block) for block in blocks]
        self.plain = plain
        codes = {n: math.prod(sizes(shapes[n])[3]) for n in shapes}
        made = {self.keys[0]: First(sum(math.prod(shapes[n]) for n in blocks[0]))}
        for i in range(1, len(blocks)):
            known = sum(codes[n] for block in blocks[:i] for n in block)
            made[self.keys[i]] = nn.Linear(known, sum(codes[n] for n in blocks[i]))
        self.blk_IARs = nn.ModuleDict(made)

    def forward(self, z):
        phi, known, first = {}, [], self.blk_IARs[self.keys[0]]
        flat = torch.cat([z[n].flatten() for n in self.blocks[0]]) * first.log_weight.exp() + first.bias
        for name, part in zip(self.blocks[0], flat.split([z[n].numel() for n in self.blocks[0]]), strict=True):
            phi[name] = part.reshape(z[name].shape)
        for i, block in enumerate(self.blocks[1:], 1):
            known += [self.layer_encoders[self.plain[n]].mlp(z[n]).flatten() for n in self.blocks[i - 1]]
            said = self.blk_IARs[self.keys[i]](torch.cat(known))
            for name, part in zip(block, said.split([math.prod(sizes(self.shapes[n])[3]) for n in block]), strict=True):
                reader = self.layer_decoders[self.plain[name]]
                hidden = reader.mlp(part.reshape(sizes(self.shapes[name])[3]))
                scale, shift = reader.log_scale(hidden).exp(), reader.shift(hidden)
                phi[name] = z[name] * scale.reshape(z[name].shape) + shift.reshape(z[name].shape)
        return {name: phi[name] for name in z}


def pair(channels=6, image=16, *, moved=0.3, seed=0):
    """`md-released` on a CNN4 in float64 with the weights of a released map, off its start by `moved`; and that map."""
    torch.manual_seed(seed)
    network = networks.create("cnn4", ways=3, image_shape=(1, image, image), channels=channels).double()
    method = optimizers.create("md-released", network, alpha=0.1)
    shapes = {name: tuple(value.shape) for name, value in method.start().items()}
    released = Released(shapes, method.blocks()).double()
    for parameter in released.parameters():
        parameter.data += moved * torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5
    load_released(method.g, released.state_dict())
    return method, released


def batch(image=16):
    x = torch.rand(1, 9, 1, image, image, dtype=torch.float64)
    y = torch.arange(3)
    return Task(x[:, :3], y[None], x[:, 3:], y.repeat(2)[None])


@pytest.mark.parametrize(("channels", "image"), [(6, 16), (11, 36), (1, 16)])
def test_map_trajectory_and_meta_gradient(channels, image):
    method, released = pair(channels, image)
    z = {name: value.detach() + 0.1 * torch.randn_like(value) for name, value in method.start().items()}
    for name, value in released(z).items():
        torch.testing.assert_close(method.g(z)[name], value, rtol=1e-13, atol=1e-14)
    assert max(float((released(z)[n] - z[n]).detach().abs().max()) for n in z) > 0.05  # far from the identity
    tasks = batch(image)
    loss, gradients = meta_gradient(method, tasks, 2, "loop")
    start = {name: value.detach().requires_grad_() for name, value in method.start().items()}
    point = start
    for _ in range(2):
        phi = released(point)
        inner = F.cross_entropy(method.predict(phi, tasks.support_x[0]), tasks.support_y[0])
        found = torch.autograd.grad(inner, list(phi.values()), create_graph=True, allow_unused=True)
        point = {n: p if g is None else p - 0.1 * g for (n, p), g in zip(point.items(), found, strict=True)}
    outer = F.cross_entropy(method.predict(released(point), tasks.query_x[0]), tasks.query_y[0])
    torch.testing.assert_close(outer.detach(), loss, rtol=1e-13, atol=1e-14)
    values = [*start.values(), *released.parameters()]
    expected = torch.autograd.grad(outer, values, allow_unused=True, materialize_grads=True)
    for name, value in zip(start, expected, strict=False):
        torch.testing.assert_close(gradients[f"network.{name}"], value, rtol=1e-10, atol=1e-13)
    # the map's gradients, brought to the suite's layout by the loader itself
    named = dict(zip(dict(released.named_parameters()), expected[len(start) :], strict=True))
    layout = BlockIAF(start, method.blocks(), zero="all").double()
    load_released(layout, named)
    for name, value in layout.named_parameters():
        torch.testing.assert_close(gradients[f"g.{name}"], value.detach(), rtol=1e-10, atol=1e-13)


def test_start_is_the_released_one():
    torch.manual_seed(0)
    network = networks.create("cnn4", ways=5, image_shape=(3, 32, 32), channels=32)
    g = optimizers.create("md-released", network).g
    for name, value in g.named_parameters():
        if name.startswith(("heads", "first_")) or (name.endswith("bias") and not name.startswith("links")):
            assert not value.any(), name
        else:  # uniform in ±1/√n for the length n of the last axis, links as torch's Linear
            bound = 1 / math.sqrt(g.links[int(name.split(".")[1])].in_features if "links" in name else value.shape[-1])
            assert value.abs().max() <= bound, name
            if value.numel() > 500:
                assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
                assert value.abs().max() > 0.95 * bound, name


@pytest.mark.parametrize(("channels", "count"), [(32, 859_391), (64, 3_447_535), (128, 14_101_871)])
def test_number_of_parameters(channels, count):
    """Of the published class, at 84×84 pixels."""
    network = networks.create("cnn4", ways=5, image_shape=(3, 84, 84), channels=channels).to("meta")
    g = BlockIAF(dict(network.named_parameters()), network.blocks(), zero="all").to("meta")
    assert sum(p.numel() for p in g.parameters()) == count


def test_other_layer_names_and_joins_load_alike():
    method, released = pair()
    renamed = {}
    for key, value in released.state_dict().items():
        for i in range(1, 5):
            key = key.replace(f"conv{i}_", f"layers_{i}_conv_").replace(f"norm{i}_", f"layers_{i}_bn_")
        renamed[key.replace("head_", "classifier_")] = value
    other, _ = pair(seed=1)
    load_released(other.g, renamed)
    for name, value in method.g.state_dict().items():
        assert torch.equal(value, other.g.state_dict()[name]), name


def _without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("layer_decoders.conv3_weight.shift.0.bias"), "it has no layer_decoders.conv3_weight.shift.0.bias"),
        (lambda state: state | {"extra": torch.zeros(1)}, "no place for its extra"),
        (lambda state: pair(8)[1].state_dict(), r"is \(4, 8\), expected \(3, 6\)"),
        (
            lambda state: {k: v for k, v in state.items() if "norm" not in k.split(".")[1]},
            "it is of 10 tensors",
        ),
        (lambda state: {}, "it has no"),
    ],
)
def test_a_misfit_is_one_line_and_changes_nothing(change, says):
    method, released = pair()
    before = {name: value.clone() for name, value in method.g.state_dict().items()}
    with pytest.raises(Misfit, match=says) as caught:
        load_released(method.g, change(released.state_dict()))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in method.g.state_dict().items())
