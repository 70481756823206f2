"""What the tests of methods share: a small batch of image tasks on CNN4, and paths by hand."""

from types import SimpleNamespace

import torch

import optimizers
from benchmark import networks


def cnn4(*, channels=4, size=16, inputs=1, ways=3, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return networks.create("cnn4", ways=ways, image_shape=(inputs, size, size), channels=channels).to(dtype)


def batch(tasks=2, *, size=16, inputs=1, ways=3, shots=1, query=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def images(each):
        return torch.rand(tasks, ways * each, inputs, size, size, generator=generator, dtype=torch.float64).to(dtype)

    def labels(each):
        return torch.arange(ways).repeat_interleave(each).repeat(tasks, 1)

    return SimpleNamespace(
        support_x=images(shots), support_y=labels(shots), query_x=images(query), query_y=labels(query)
    )


def create(name, *, channels=4, inputs=1, size=16, ways=3, seed=0, **options):
    return optimizers.create(name, cnn4(channels=channels, inputs=inputs, size=size, ways=ways, seed=seed), **options)


def added(name, channels, features, *, inputs=3, ways=5, **options):
    """Meta-parameters of a method beside the network's own, for a head that sees `features` positions per channel."""
    size = {1: 28, 4: 32, 25: 84}[features]
    with torch.random.fork_rng(devices=[]):
        network = networks.create("cnn4", ways=ways, image_shape=(inputs, size, size), channels=channels)
    own = sum(p.numel() for p in network.parameters())
    return sum(p.numel() for p in optimizers.create(name, network, **options).parameters()) - own
