"""The networks' structure, sizes and errors."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark import networks
from benchmark.engine import fused
from benchmark.errors import UserError


@pytest.mark.parametrize(
    ("size", "channels", "parameters"), [(84, 32, 32901), (84, 64, 121093), (84, 128, 463365), (32, 64, 114373)]
)
def test_cnn4_has_the_published_size(size, channels, parameters):
    network = networks.create("cnn4", 5, (3, size, size), channels)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_cnn4_is_four_blocks_and_a_head():
    torch.manual_seed(0)
    network = networks.create("cnn4", 4, (3, 21, 19), 6).double()
    names = [name for name, _ in network.named_parameters()]
    owners = [f"{kind}{i}" for i in range(1, 5) for kind in ("conv", "norm")] + ["head"]
    assert names == [f"{owner}.{leaf}" for owner in owners for leaf in ("weight", "bias")]
    assert network.blocks() == [names[4 * i : 4 * i + 4] for i in range(5)]
    x = torch.rand(5, 3, 21, 19, dtype=torch.float64)
    y = x
    for i in range(1, 5):
        conv, norm = getattr(network, f"conv{i}"), getattr(network, f"norm{i}")
        y = F.conv2d(y, conv.weight, conv.bias, padding=1)
        y = F.batch_norm(y, None, None, norm.weight, norm.bias, training=True)
        y = F.max_pool2d(F.relu(y), 2)
    expected = network.head(y.flatten(1))
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-12)
    with fused.disabled():
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-12)
    with fused.disabled(primitives=True):
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)])
def test_a_layer_inserted_before_the_norm(layer):
    """A 1×1 convolution is folded into the weight; the result is that of applying it."""
    torch.manual_seed(0)
    network = networks.create("cnn4", 3, (1, 16, 16), 4).double()
    network.insert("conv2", layer.double())
    x = torch.rand(5, 1, 16, 16, dtype=torch.float64)
    y = F.max_pool2d(F.relu(network.norm1(network.conv1(x))), 2)
    y = F.max_pool2d(F.relu(network.norm2(layer(network.conv2(y)))), 2)
    for i in (3, 4):
        y = F.max_pool2d(F.relu(getattr(network, f"norm{i}")(getattr(network, f"conv{i}")(y))), 2)
    torch.testing.assert_close(network(x), network.head(y.flatten(1)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", networks.available())
def test_channels_are_the_width(name):
    narrow, wide = (networks.create(name, 3, (3, 16, 16), channels).places("layer") for channels in (4, 8))
    assert {place: 2 * width for place, width in narrow.items()} == wide
    assert next(iter(narrow.values())) == 4


@pytest.mark.parametrize("name", networks.available())
def test_every_place_takes_a_layer(name):
    network = networks.create(name, 3, (3, 16, 16), 4)
    x = torch.rand(5, 1) if name == "sine-mlp" else torch.rand(5, 3, 16, 16)
    before = network(x)
    seen = []

    class Seen(nn.Module):
        def forward(self, values):
            seen.append(values.shape[1])
            return values

    expected = []
    for kind in ("layer", "block", "head"):
        for place, channels in network.places(kind).items():
            network.insert(place, Seen())
            expected.append(channels)
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)
    assert sorted(seen) == sorted(expected)
    with pytest.raises(ValueError, match="already holds"):
        network.insert(place, Seen())
    with pytest.raises(ValueError, match=r"no place 'conv9'.*expected one of"):
        network.insert("conv9", Seen())
    own = [parameter for block in network.blocks() for parameter in block]
    assert own == [parameter for parameter, _ in network.named_parameters() if not parameter.startswith("inserted.")]


def test_cnn2_is_two_blocks_with_four_by_four_pooling():
    torch.manual_seed(0)
    network, x = networks.create("cnn2", 5, (3, 84, 84), 8), torch.rand(6, 3, 84, 84)
    outputs = x
    for i in (1, 2):
        outputs = nn.functional.conv2d(outputs, getattr(network, f"conv{i}").weight, padding=1)
        outputs = nn.functional.batch_norm(outputs, None, None, training=True).relu()
        outputs = nn.functional.max_pool2d(outputs, 4)
    assert outputs.shape == (6, 8, 5, 5)
    torch.testing.assert_close(network(x), network.head(outputs.flatten(1)), rtol=1e-4, atol=1e-5)
    assert len(network.blocks()) == 3


def test_resnet12_has_twelve_convolutions_and_its_published_size():
    network = networks.create("resnet12", 5, (3, 84, 84), 64)
    convolutions = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert len(convolutions) == 12
    assert len(network.blocks()) == 5
    assert sum(p.numel() for n, p in network.named_parameters() if n.split(".")[0] != "head") == 12_424_320


def test_wrong_networks_are_user_errors():
    with pytest.raises(UserError, match=r"no network 'cnn' \(did you mean 'cnn4'\?\)"):
        networks.create("cnn")
    for name in ("cnn4", "cnn2", "resnet12"):
        with pytest.raises(UserError, match="at least 16×16 pixels, got 12×12"):
            networks.create(name, 5, (3, 12, 12))
