"""The engine's second-order meta-gradient against an independent implementation, the library `higher`."""

import pytest
import torch

from benchmark import networks
from benchmark.metagrad import Task, meta_gradient, tasks
from benchmark.timing.peers import higher_mean_gradient
from optimizers.base import InnerOptimizer


class PlainDescent(InnerOptimizer):
    """The smallest method: φ ← φ − α G."""

    def step(self, state, grads, k):
        return {"phi": {name: p - self.alpha * grads[name] for name, p in state["phi"].items()}}


def batch_of(shape=(3, 20, 20), ways=3, shots=2, queries=3, count=2, seed=0):
    """Random images, class-major labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    support_y = torch.arange(ways).repeat_interleave(shots).expand(count, -1)
    query_y = torch.arange(ways).repeat_interleave(queries).expand(count, -1)
    draw = [
        torch.rand(count, y.shape[1], *shape, generator=generator, dtype=torch.float64) for y in (support_y, query_y)
    ]
    return Task(draw[0], support_y, draw[1], query_y)


@pytest.mark.parametrize("steps", [1, 5])
def test_second_order_meta_gradient_equals_higher(steps):
    torch.manual_seed(0)
    network = networks.create("cnn4", ways=3, image_shape=(3, 20, 20), channels=6).double()
    optimizer = PlainDescent(network, alpha=0.1)
    batch = batch_of()
    loss, gradient = meta_gradient(optimizer, batch, steps=steps, strategy="loop")
    expected_loss, expected = higher_mean_gradient(network, tasks(batch), steps, 0.1)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    for name, value in gradient.items():
        torch.testing.assert_close(value, expected[name.removeprefix("network.")], rtol=1e-10, atol=1e-12)
