"""How query images are normalised: by their own batch, by the support set, or each by itself."""

import dataclasses
import itertools

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

import optimizers
from benchmark import networks
from benchmark.adapt import adapt
from benchmark.cli import parser
from benchmark.engine import fused
from benchmark.errors import UserError
from benchmark.metagrad import Task, evaluate_batch, meta_gradient, tasks
from benchmark.runs import assembly
from benchmark.spec import NORMS, RunSpec
from optimizers.contract.kit import finite_differences, perturb, stacked_noise, worst_difference
from tests.engine.helpers import assert_same_gradient, images

CHANNELS = {"cnn4": 4, "cnn2": 4, "resnet12": 2}


def made(method="maml", network="cnn4", norm="support", **options):
    torch.manual_seed(0)
    start = networks.create(network, 3, (1, 16, 16), CHANNELS[network], norm).double()
    optimizer = optimizers.create(method, start, alpha=0.1, **options)
    perturb(optimizer, 0.1)
    with torch.no_grad():  # both signs of γ
        for name, value in optimizer.named_parameters():
            if "norm1.weight" in name and name.startswith("network."):
                value[::2] *= -1
    return optimizer


def batch(count=1, queries=2):
    return images(shape=(1, 16, 16), shots=1, queries=queries, count=count)


def query(task, rows):
    """The task with these query images alone."""
    return dataclasses.replace(task, query_x=task.query_x[rows], query_y=task.query_y[rows])


# What a prediction depends on


@pytest.mark.parametrize("network", CHANNELS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_prediction_sees_the_other_query_images_under_batch_norm_alone(network, norm):
    optimizer, (task,) = made(network=network, norm=norm), tasks(batch())
    params = adapt(optimizer, task.support_x, task.support_y, 2).params
    together = optimizer.predict_query(params, task)
    alone = torch.cat([optimizer.predict_query(params, query(task, [i])) for i in range(len(task.query_y))])
    off = float((together - alone).detach().abs().max())
    assert off > 1e-3 if norm == "batch" else off < 1e-12
    replaced = dataclasses.replace(task, query_x=torch.cat([task.query_x[:2], torch.rand_like(task.query_x[2:])]))
    off = float((optimizer.predict_query(params, replaced)[:2] - together[:2]).detach().abs().max())
    assert off > 1e-3 if norm == "batch" else off < 1e-12


@pytest.mark.parametrize("method", optimizers.available())
def test_what_every_method_is_trained_for_is_a_mean_over_query_images(method):
    """Its objective on a query set is the mean of those on each image: no query loss is taken past the norm."""
    optimizer, (task,) = made(method), tasks(batch())
    drawn = stacked_noise(optimizer, 1)
    walked = adapt(
        optimizer, task.support_x, task.support_y, 2, create_graph=True, noise=None if drawn is None else drawn[0]
    )
    whole = optimizer.objective(task, walked)
    single = [optimizer.objective(query(task, [i]), walked) for i in range(len(task.query_y))]
    torch.testing.assert_close(torch.stack(single).mean(), whole, rtol=1e-11, atol=1e-12)


# Against formulas of torch's own


def written_out(network, values, support, inputs):
    """CNN4 with each batch norm's mean and biased variance taken from the support images at the same parameters."""
    for i in range(1, network.depth + 1):
        w, b = values[f"conv{i}.weight"], values[f"conv{i}.bias"]
        gamma, beta = values[f"norm{i}.weight"], values[f"norm{i}.bias"]
        support, inputs = (F.conv2d(x, w, b, padding=1) for x in (support, inputs))
        mean, variance = support.mean((0, 2, 3)), support.var((0, 2, 3), correction=0)
        both = (F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=1e-5) for x in (support, inputs))
        support, inputs = (F.max_pool2d(F.relu(x), network.pool) for x in both)
    return F.linear(inputs.flatten(1), values["head.weight"], values["head.bias"])


@pytest.mark.parametrize("network", ["cnn4", "cnn2"])
def test_query_images_are_normalised_by_the_support_set_at_the_adapted_parameters(network):
    optimizer, (task,) = made(network=network), tasks(batch())
    params = adapt(optimizer, task.support_x, task.support_y, 2).params
    expected = written_out(optimizer.network, params, task.support_x, task.query_x)
    torch.testing.assert_close(optimizer.predict_query(params, task), expected, rtol=1e-10, atol=1e-11)
    measured = evaluate_batch(optimizer, batch(), 2)
    torch.testing.assert_close(measured.nll[0], F.cross_entropy(expected, task.query_y), rtol=1e-10, atol=0)


@pytest.mark.parametrize("network", CHANNELS)
def test_the_inner_loop_of_support_norm_is_that_of_batch_norm(network):
    (task,) = tasks(batch())
    paths = [
        adapt(made(network=network, norm=norm), task.support_x, task.support_y, 3).nll for norm in ("batch", "support")
    ]
    assert torch.equal(*paths)


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (5, 5), (12, 6), (32, 8), (64, 8)])
def test_group_norm(channels, groups):
    """Values and gradients, with scales of either sign in every group."""
    torch.manual_seed(0)
    network = networks.create("cnn4", 3, (1, 16, 16), channels, "group").double()
    perturb(network, 0.3)
    with torch.no_grad():
        for i in range(1, 5):
            getattr(network, f"norm{i}").weight[::2] *= -1
    x = torch.rand(5, 1, 16, 16, dtype=torch.float64)
    y = x
    for i in range(1, 5):
        conv, norm = getattr(network, f"conv{i}"), getattr(network, f"norm{i}")
        y = F.conv2d(y, conv.weight, conv.bias, padding=1)
        y = F.max_pool2d(F.relu(F.group_norm(y, groups, norm.weight, norm.bias, eps=1e-5)), 2)
    expected = network.head(y.flatten(1))
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-11)
    named = dict(network.named_parameters())
    found, wanted = (torch.autograd.grad(each.square().sum(), list(named.values())) for each in (network(x), expected))
    for name, one, other in zip(named, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_layers_inserted_before_the_norm_keep_their_place():
    """A 1×1 convolution is folded into the convolution, its bias with it; another layer is applied as it is."""
    for norm, bias in itertools.product(("group", "support"), (False, True)):
        outputs = []
        folded, applied = (torch.nn.Conv2d(16, 16, 1, bias=bias) for _ in range(2))
        for layer in (folded, torch.nn.Sequential(applied)):
            torch.manual_seed(0)
            network = networks.create("cnn4", 3, (1, 16, 16), 16, norm)
            for parameter in layer.parameters():
                torch.nn.init.normal_(parameter)
            network.insert("conv2", layer)
            network.double()
            values = {f"conv{i}.bias": torch.linspace(-1, 1, 16).double() for i in range(1, 5)}
            x = torch.linspace(0, 1, 6 * 256, dtype=torch.float64).sin().view(6, 1, 16, 16)
            outputs.append(functional_call(network, values, (x,), {"reference": 2}))
        weights = [next(each) for each in (network.inserted["conv2"].parameters(), layer.parameters())]
        assert torch.equal(*weights)
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-10)


# Derivatives


@pytest.mark.parametrize(
    ("method", "network", "norm"),
    [
        *(("maml", network, norm) for network in CHANNELS for norm in ("support", "group")),
        *((method, "cnn4", "support") for method in ("mtnet", "warpgrad")),
        ("ecml", "cnn4", "group"),
    ],
)
def test_one_meta_gradient_in_every_strategy(method, network, norm):
    optimizer, many = made(method, network, norm), batch(2)
    drawn, steps = stacked_noise(optimizer, 2), 1 if network == "resnet12" else 2
    with fused.disabled(primitives=True):
        expected = meta_gradient(optimizer, many, steps, "loop", noise=drawn)
    for strategy in ("loop", "vmap"):
        for recompute in (False, True):
            found = meta_gradient(optimizer, many, steps, strategy, recompute, noise=drawn)
            assert_same_gradient(found, expected, rtol=1e-10 if method != "ecml" else 1e-9)


@pytest.mark.parametrize("norm", ["support", "group"])
@pytest.mark.parametrize("network", ["cnn4", "resnet12"])
def test_meta_gradient_against_finite_differences(network, norm):
    optimizer, one = made("maml", network, norm), batch()

    def value():
        return meta_gradient(optimizer, one, 1, "loop")[0]

    gradients = meta_gradient(optimizer, one, 1, "loop")[1]
    pairs = {
        seed: finite_differences(optimizer, gradients, value, epsilon=1e-8, seed=seed, together=True)["all"]
        for seed in (0, 1)
    }
    assert worst_difference(pairs)[0] < 1e-4


def test_evaluation_is_the_same_in_both_strategies():
    for norm in NORMS:
        optimizer, many = made(norm=norm), batch(3)
        loop, vmap = (evaluate_batch(optimizer, many, 2, strategy) for strategy in ("loop", "vmap"))
        for a, b in zip(loop, vmap, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# The knob


def test_the_default_is_batch_norm_and_leaves_names_as_they_were():
    assert "norm" not in RunSpec().changed()
    assert RunSpec(norm="batch").name == RunSpec().name
    assert len({RunSpec(norm=norm).training_digest() for norm in NORMS}) == 3
    assert assembly.build(RunSpec(channels=4), (1, 16, 16)).network.norm == "batch"
    starts = [assembly.build(RunSpec(channels=4, norm=norm), (1, 16, 16)).state_dict() for norm in NORMS]
    assert all(torch.equal(starts[0][name], other[name]) for other in starts[1:] for name in other)


def test_wrong_norms_are_user_errors(capsys):
    with pytest.raises(UserError, match=r"no norm 'suport' \(did you mean 'support'\?\)"):
        networks.create("cnn4", norm="suport")
    with pytest.raises(UserError, match="sine-mlp normalises nothing"):
        networks.create("sine-mlp", norm="group")
    assert parser.main(["run", "--methods", "maml", "--norm", "layer", "--dry-run"]) == 2
    assert "norm 'layer' is unknown; expected batch or support or group" in capsys.readouterr().err


def test_an_empty_batch_is_no_error():
    none = Task(*(column[:0] for column in vars(batch()).values()))
    assert float(meta_gradient(made(), none, 2)[0]) == 0
