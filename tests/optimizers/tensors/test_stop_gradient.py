"""Held stop-gradients make differences of what the gradient is of."""

import pytest
import torch

from optimizers.tensors.stop_gradient import hold, stop_gradient


def test_is_detach():
    x = torch.tensor(3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(x * stop_gradient(x), [x])
    assert gradient == 3.0


def test_held_values_do_not_follow():
    def f(x):
        return stop_gradient(x**2) * x + stop_gradient(5 * x)

    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(f(x), [x])
    with hold() as held:
        f(x)
        values = []
        for e in (1e-6, -1e-6):
            held.again()
            values.append(f(x + e).item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient.item())
    free = (f(x + 1e-6) - f(x - 1e-6)).item() / 2e-6  # outside, the value moves with x
    assert free == pytest.approx(3 * 4 + 5)
