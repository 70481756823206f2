"""Small tasks and settled optimizers for the engine's tests."""

import torch

import optimizers
from benchmark import networks
from benchmark.metagrad import Task


def images(shape=(3, 20, 20), ways=3, shots=2, queries=3, count=2, seed=0, dtype=torch.float64):
    """`count` classification tasks of random images, class-major."""
    generator = torch.Generator().manual_seed(seed)
    support_y = torch.arange(ways).repeat_interleave(shots).expand(count, -1)
    query_y = torch.arange(ways).repeat_interleave(queries).expand(count, -1)
    drawn = [torch.rand(count, y.shape[1], *shape, generator=generator, dtype=dtype) for y in (support_y, query_y)]
    return Task(drawn[0], support_y, drawn[1], query_y)


def small_images(count=2):
    return images(shape=(3, 16, 16), count=count)


def sines(count=2, seed=0, dtype=torch.float64):
    """`count` regression tasks: 5 support and 7 query points of sine waves."""
    generator = torch.Generator().manual_seed(seed)
    phase = 3 * torch.rand(count, 1, 1, generator=generator, dtype=dtype)
    x = 5 - 10 * torch.rand(count, 12, 1, generator=generator, dtype=dtype)
    y = torch.sin(x + phase)
    return Task(x[:, :5], y[:, :5], x[:, 5:], y[:, 5:])


NETWORKS = {
    "cnn4": (lambda: networks.create("cnn4", ways=3, image_shape=(3, 20, 20), channels=6), images),
    "resnet12": (lambda: networks.create("resnet12", ways=3, image_shape=(3, 16, 16), channels=2), small_images),
    "sine-mlp": (lambda: networks.create("sine-mlp"), sines),
}


def settled(method, network="cnn4", seed=0, count=2, **options):
    """(optimizer, batch, noise) in float64, away from the method's special starting point."""
    torch.manual_seed(seed)
    make, tasks = NETWORKS[network]
    optimizer = optimizers.create(method, make(), alpha=0.1, **options).double()
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = tasks(count=count)
    generator = torch.Generator().manual_seed(seed)
    drawn = [optimizer.noise(generator) for _ in range(len(batch.support_x))]
    return optimizer, batch, None if drawn[0] is None else torch.stack(drawn).double()


def assert_same_gradient(found, expected, rtol=1e-10):
    """Losses, and gradients name by name, to `rtol` of the larger of their own and a millionth of the whole norm."""
    torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=0)
    assert found[1].keys() == expected[1].keys()
    whole = sum(float(g.norm()) ** 2 for g in expected[1].values()) ** 0.5
    for name, g in expected[1].items():
        error = float((found[1][name] - g).norm())
        assert error <= rtol * max(float(g.norm()), 1e-3 * whole), f"{name}: {error:.1e} of {float(g.norm()):.1e}"
