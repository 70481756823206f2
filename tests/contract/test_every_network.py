"""Every method, whatever it adapts, on every network with batch norm: one meta-gradient, however it is computed.

The reference is a loop over tasks with autograd and batch norm written out from primitives: neither torch's batch norm
nor the fused block has a part in it, and nothing is vmapped around them.
"""

import functools

import pytest
import torch

import optimizers
from benchmark import networks
from benchmark.engine import fused
from benchmark.metagrad import meta_gradient
from optimizers.contract.kit import finite_differences, perturb, stacked_noise
from tests.engine.helpers import assert_same_gradient, images

CHANNELS = {"cnn4": 4, "cnn2": 4, "resnet12": 2}
PATTERN = "*conv*.weight"
ADAPT = ("all", "head", "body", PATTERN)
TASK = functools.partial(images, shape=(1, 16, 16), shots=1, queries=1, count=1)


def made(method, network, **options):
    torch.manual_seed(0)
    start = networks.create(network, ways=3, image_shape=(1, 16, 16), channels=CHANNELS[network])
    optimizer = optimizers.create(method, start, alpha=0.05, **options).double()
    perturb(optimizer, 0.05)
    return optimizer


def agree(optimizer, steps):
    batch, drawn = TASK(), stacked_noise(optimizer, 1)
    with fused.disabled(primitives=True):
        expected = meta_gradient(optimizer, batch, steps, "loop", noise=drawn)
    for strategy, recompute in (("loop", False), ("vmap", False), ("vmap", True)):
        assert_same_gradient(
            meta_gradient(optimizer, batch, steps, strategy, recompute, noise=drawn), expected, rtol=1e-9
        )


@pytest.mark.parametrize("adapt", ADAPT)
@pytest.mark.parametrize("network", CHANNELS)
@pytest.mark.parametrize("method", optimizers.available())
def test_one_meta_gradient(method, network, adapt):
    if method == "cavia" and adapt != "all":
        pytest.skip("its context adapts, and nothing else can")
    agree(made(method, network, adapt=adapt), steps=1 if network == "resnet12" else 2)


@pytest.mark.parametrize("network", CHANNELS)
def test_one_meta_gradient_of_ecml_with_respect_to_all(network):
    agree(made("ecml", network, wrt="all", adapt="body"), steps=1)


@pytest.mark.parametrize(
    ("method", "network", "adapt"),
    [
        *((method, "cnn2", adapt) for method in ("maml", "ecml") for adapt in ("body", PATTERN)),
        ("ecml", "resnet12", "body"),
    ],
)
def test_meta_gradient_against_finite_differences(method, network, adapt):
    optimizer, batch = made(method, network, adapt=adapt), TASK()
    gradients = meta_gradient(optimizer, batch, 1, "loop")[1]
    pairs = finite_differences(
        optimizer, gradients, lambda: meta_gradient(optimizer, batch, 1, "loop")[0], epsilon=1e-7
    )
    for key, (exact, numeric) in pairs.items():
        assert exact == pytest.approx(numeric, rel=1e-4, abs=2e-8), key
