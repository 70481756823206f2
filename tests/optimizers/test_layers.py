"""Methods that put layers of their own into the network: MT-net and WarpGrad."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from benchmark import networks
from benchmark.adapt import adapt
from benchmark.metagrad import meta_gradient
from optimizers import BadOption, create
from optimizers.contract.kit import perturb, stacked_noise
from tests.optimizers import helpers


def test_mtnet_masks_whole_output_channels_for_the_whole_task():
    method, task = helpers.create("mtnet", alpha=0.5), helpers.batch(1)
    drawn = stacked_noise(method, 1)[0]
    masks = method.masks(drawn)
    assert list(masks) == ["conv1", "conv2", "conv3", "conv4", "head"]
    values = torch.cat(list(masks.values())).detach()
    assert set(values.tolist()) == {0.0, 1.0}
    walked = adapt(method, task.support_x[0], task.support_y[0], steps=3, noise=drawn)
    start = method.start()
    for layer, mask in masks.items():
        moved = (walked.params[f"{layer}.weight"] - start[f"{layer}.weight"]).detach().flatten(1).abs().amax(1) > 0
        assert moved.tolist() == (mask > 0).tolist()
    assert (walked.params["head.bias"] != start["head.bias"]).tolist() == (masks["head"] > 0).tolist()
    assert all(torch.equal(walked.state["mask"][layer], mask) for layer, mask in masks.items())
    assert (walked.params["norm1.weight"] != start["norm1.weight"]).any()  # follows no mask


def test_mtnet_mask_frequencies_and_straight_through_gradient():
    method = helpers.create("mtnet")
    method.logit["conv1"].data.fill_(1.0)
    generator = torch.Generator().manual_seed(0)
    on = torch.stack([method.masks(method.noise(generator))["conv1"].detach() for _ in range(1000)]).mean()
    assert float(on) == pytest.approx(1 / (1 + 2.718281828**-1), abs=0.03)  # P(mask) = sigmoid(ζ)
    drawn = method.noise(generator)
    (slope,) = torch.autograd.grad(method.masks(drawn)["conv1"].sum(), [method.logit["conv1"]])
    soft = (1.0 + drawn[:4].double()).sigmoid()
    torch.testing.assert_close(slope, soft * (1 - soft))


def test_tnet_step_is_a_step_in_the_metric_of_t():
    """A linear layer followed by T: the effective weight T W moves along T Tᵀ ∂L/∂(T W)."""
    torch.manual_seed(0)
    network = networks.create("sine-mlp").double()
    method = create("mtnet", network, alpha=0.1, mask=False, adapt="linear2.weight")
    perturb(method, 0.3)
    x = torch.randn(7, 1, dtype=torch.float64)
    y = torch.sin(x)
    t = method.network.inserted["linear2"].weight.detach()
    walked = adapt(method, x, y, steps=1)
    weight = method.start()["linear2.weight"].detach()
    effective = (t @ weight).requires_grad_()
    hidden = F.relu(
        F.linear(F.linear(x, network.linear1.weight, network.linear1.bias), network.inserted["linear1"].weight)
    )
    second = F.relu(F.linear(hidden, effective) + F.linear(network.linear2.bias, t))
    out = F.linear(F.linear(second, network.head.weight, network.head.bias), network.inserted["head"].weight)
    (slope,) = torch.autograd.grad(F.mse_loss(out, y), [effective])
    torch.testing.assert_close(t @ walked.params["linear2.weight"], (effective - 0.1 * t @ t.mT @ slope).detach())


def test_inserted_layers_never_adapt():
    for name in ("mtnet", "warpgrad"):
        method = helpers.create(name)
        assert not [n for n in method.adapted if "inserted" in n]
        assert helpers.create(name, adapt="head").adapted == ("head.weight", "head.bias")


def test_insertion_needs_a_network_that_offers_it():
    for name in ("mtnet", "warpgrad"):
        with pytest.raises(BadOption, match="Linear needs methods places"):
            create(name, torch.nn.Linear(2, 2))


def warp_reference(method, task, *, alpha, steps):
    """WarpGrad's two gradients by separate, explicit objectives."""
    x, y, qx, qy = task.support_x[0], task.support_y[0], task.query_x[0], task.query_y[0]
    net = {n: p.detach() for n, p in method.network.named_parameters()}
    warp = {n: net[n] for n in net if n.startswith("inserted.")}
    start = {n: net[n] for n in net if n not in warp}

    def loss(phi, w, x, y):
        return F.cross_entropy(functional_call(method.network, {**phi, **w}, (x,)), y)

    def step(phi, w):
        found = torch.autograd.grad(
            loss(phi, w, x, y), list(phi.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        return {n: p - alpha * g for (n, p), g in zip(phi.items(), found, strict=True)}

    first = {n: p.clone().requires_grad_() for n, p in start.items()}
    point, visited = first, []
    for _ in range(steps):
        visited.append({n: p.detach().requires_grad_() for n, p in point.items()})
        point = step(point, warp)  # w a constant
    for_start = loss(point, warp, qx, qy)
    found = torch.autograd.grad(for_start, list(first.values()), allow_unused=True, materialize_grads=True)
    expected = dict(zip(first, found, strict=True))
    free = {n: p.clone().requires_grad_() for n, p in warp.items()}
    for_warp = sum(loss(step(phi, free), free, qx, qy) for phi in visited) / steps
    expected |= dict(zip(free, torch.autograd.grad(for_warp, list(free.values())), strict=True))
    return float((for_start + for_warp).detach()), expected


def test_warpgrad_trains_start_and_warp_by_their_own_objectives():
    method, task = helpers.create("warpgrad", alpha=0.2), helpers.batch(1)
    perturb(method, 0.1)
    loss, gradients = meta_gradient(method, task, steps=3, strategy="loop")
    value, expected = warp_reference(method, task, alpha=0.2, steps=3)
    assert float(loss) == pytest.approx(value, abs=1e-12)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[f"network.{name}"], gradient, rtol=1e-9, atol=1e-12)


def test_warpgrad_layers_stand_after_every_block_but_the_first():
    method = helpers.create("warpgrad")
    assert list(method.network.inserted) == ["block2", "block3", "block4"]
    with torch.no_grad():
        x = torch.rand(2, 4, 5, 5, dtype=torch.float64)
        assert torch.equal(method.network.inserted["block2"](x), x)
        assert not torch.equal(helpers.create("warpgrad", warp_start="random").network.inserted["block2"](x), x)


def test_leap_energy_of_the_path():
    """∇_{φ_0} ½ Σ ‖φ̄_{k+1} − φ_k‖² + (L̄_{k+1} − L_k)² by Leap's rule: Σ (φ_k − φ_{k+1}) + (L_k − L_{k+1}) ∇L_k."""
    method, task = helpers.create("warpgrad", alpha=0.2, start_objective="leap"), helpers.batch(1)
    x, y = task.support_x[0], task.support_y[0]
    _, gradients = meta_gradient(method, task, steps=2, strategy="loop")
    phi = {n: p.detach() for n, p in method.start().items()}
    points, slopes, losses = [phi], [], []
    for _ in range(3):
        here = {n: p.clone().requires_grad_() for n, p in points[-1].items()}
        loss = method.loss(here, x, y)
        found = torch.autograd.grad(loss, list(here.values()), allow_unused=True, materialize_grads=True)
        slopes.append(dict(zip(here, found, strict=True)))
        losses.append(loss.item())
        points.append({n: p - 0.2 * slopes[-1][n] for n, p in points[-1].items()})
    for name in phi:
        expected = sum(
            points[k][name] - points[k + 1][name] + (losses[k] - losses[k + 1]) * slopes[k][name] for k in (0, 1)
        )
        torch.testing.assert_close(gradients[f"network.{name}"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["mtnet", "warpgrad"])
def test_the_network_is_taken_over_and_what_was_inserted_never_moves(name):
    network = networks.create("cnn4", ways=3, image_shape=(1, 16, 16), channels=4)
    own = [n for n, _ in network.named_parameters()]
    method = create(name, network)
    assert method.network is network
    assert len(network.inserted) > 0
    assert list(method.adapted) == own
    assert method.last_layer() == ("head.weight", "head.bias")
    with pytest.raises(BadOption, match="no option 'frozen'"):
        create(name, networks.create("cnn4"), frozen="conv")
    with pytest.raises(BadOption, match="matches no parameter"):
        create(name, networks.create("cnn4"), adapt="inserted.*")


def test_warpgrads_loss_is_a_function_of_phi_and_the_warped_one_of_w_too():
    method = helpers.create("warpgrad")
    perturb(method, 0.1)
    task = helpers.batch(1)
    point = {n: p.detach().requires_grad_() for n, p in method.start().items()}
    warps = list(method.network.inserted.parameters())
    plain, warped = (f(point, task.query_x[0], task.query_y[0]) for f in (method.loss, method.warped_loss))
    assert torch.equal(plain, warped)
    assert all(g is None for g in torch.autograd.grad(plain, warps, allow_unused=True, retain_graph=True))
    assert all(g.any() for g in torch.autograd.grad(warped, warps, retain_graph=True))
    slopes = (torch.autograd.grad(loss, list(point.values()), allow_unused=True) for loss in (plain, warped))
    for one, other in zip(*slopes, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
