"""CAVIA against a network that is written out with its context as an input, whose gradient autograd takes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark import networks
from benchmark.adapt import adapt
from benchmark.metagrad import meta_gradient
from optimizers import BadOption
from optimizers import create as make
from optimizers.contract.kit import perturb
from tests.optimizers.helpers import batch, create


def forward(values, weight, context, x):
    """CNN4 whose third block is modulated by γ, β = b + W c between pooling and ReLU."""
    for i in range(1, 5):
        x = F.conv2d(x, values[f"conv{i}.weight"], values[f"conv{i}.bias"], padding=1)
        x = F.batch_norm(x, None, None, values[f"norm{i}.weight"], values[f"norm{i}.bias"], training=True)
        x = F.max_pool2d(x, 2)
        if i == 3:
            gamma = values["inserted.activation3.scale"] + weight[0] @ context
            beta = values["inserted.activation3.shift"] + weight[1] @ context
            x = gamma[None, :, None, None] * x + beta[None, :, None, None]
        x = x.relu()
    return F.linear(x.flatten(1), values["head.weight"], values["head.bias"])


def test_context_and_meta_gradient_by_autograd():
    alpha, steps = 0.7, 3
    method, task = create("cavia", alpha=alpha, context=5), batch(1)
    perturb(method, 0.2)
    named = dict(method.named_parameters())
    values = {name.removeprefix("network."): p for name, p in named.items() if name != "weight"}
    context = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = F.cross_entropy(forward(values, method.weight, context, task.support_x[0]), task.support_y[0])
        (slope,) = torch.autograd.grad(loss, [context], create_graph=True)
        context = context - alpha * slope
    walked = adapt(method, task.support_x[0], task.support_y[0], steps)
    assert float(context.detach().norm()) > 1e-3
    torch.testing.assert_close(walked.state["context"], context.detach(), rtol=1e-9, atol=1e-12)
    loss = F.cross_entropy(forward(values, method.weight, context, task.query_x[0]), task.query_y[0])
    expected = torch.autograd.grad(loss, list(named.values()))
    value, found = meta_gradient(method, task, steps, "loop")
    torch.testing.assert_close(value, loss.detach(), rtol=1e-10, atol=0)
    for name, gradient in zip(named, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("network", ["cnn4", "cnn2", "resnet12", "sine-mlp"])
def test_only_one_layers_scales_and_shifts_move(network):
    torch.manual_seed(0)
    method = make("cavia", networks.create(network, 3, (1, 16, 16), 2), alpha=1.0)
    place = {"cnn4": 3, "cnn2": 1, "resnet12": 3, "sine-mlp": 1}[network]
    assert method.adapted == (f"inserted.activation{place}.scale", f"inserted.activation{place}.shift")
    channels = len(method.start()[method.adapted[0]])
    assert method.weight.shape == (2, channels, 100)
    assert not method.init_state()["context"].any()


def test_the_start_is_that_of_the_public_code():
    """W by He's rule for a linear layer of 100 inputs, b as torch's Linear has it."""
    torch.manual_seed(0)
    method = make("cavia", networks.create("cnn4", 5, (1, 28, 28), 64))
    reference = nn.Linear(100, 128)
    nn.init.kaiming_uniform_(reference.weight, nonlinearity="linear")
    bias = torch.cat([value.detach() for value in method.start().values()])
    for own, other in ((method.weight, reference.weight), (bias, reference.bias)):
        assert float(own.detach().abs().max()) == pytest.approx(float(other.detach().abs().max()), rel=0.05)
        assert float(own.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.15)


def test_its_errors_say_what_to_do():
    with pytest.raises(BadOption, match="cavia adapts its context alone: leave adapt at 'all', got 'head'"):
        create("cavia", adapt="head")
    with pytest.raises(BadOption, match="context must be at least 1, got 0"):
        create("cavia", context=0)
    with pytest.raises(BadOption, match="Linear needs methods places"):
        make("cavia", nn.Linear(2, 2))
