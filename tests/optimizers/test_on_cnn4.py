"""Every method on the benchmark's own network: derivatives, MAML's start, live meta-parameters, published sizes."""

import pytest
import torch

import optimizers
from benchmark.adapt import adapt
from benchmark.metagrad import meta_gradient
from optimizers.contract.kit import finite_differences, largest_gradients, perturb, stacked_noise
from tests.optimizers.helpers import added, batch, create

ALL = optimizers.available()
NO_OP = "the batch norm behind it removes a convolution's bias"


@pytest.mark.parametrize("name", ALL)
def test_meta_gradient_against_finite_differences(name):
    """Central differences along one random direction in every meta-parameter tensor."""
    optimizer, tasks = create(name, alpha=0.05), batch(1)
    perturb(optimizer, 0.05)
    drawn, steps = stacked_noise(optimizer, 1), 1 if name == "md-released" else 2  # the same code as md
    _, gradients = meta_gradient(optimizer, tasks, steps=steps, strategy="loop", noise=drawn)
    assert gradients.keys() == dict(optimizer.named_parameters()).keys()
    pairs = finite_differences(
        optimizer,
        gradients,
        lambda: meta_gradient(optimizer, tasks, steps=steps, strategy="loop", noise=drawn)[0],
        epsilon=1e-7,  # small: ReLU and pooling have kinks
        seed=7,
    )
    for key, (exact, numeric) in pairs.items():
        assert exact == pytest.approx(numeric, rel=1e-4, abs=2e-8), key
    large = sum(abs(exact) > 1e-6 for exact, _ in pairs.values())
    assert large >= len(gradients) // 3  # most directions have a derivative worth the name


@pytest.mark.parametrize("name", [n for n in ALL if optimizers.card(n).starts_as_maml])
def test_starts_on_mamls_trajectory(name):
    tasks = batch()
    maml, method = create("maml", alpha=0.1), create(name, alpha=0.1)
    reference = adapt(maml, tasks.support_x[0], tasks.support_y[0], steps=5)
    walked = adapt(method, tasks.support_x[0], tasks.support_y[0], steps=5)
    torch.testing.assert_close(walked.nll, reference.nll, rtol=0, atol=1e-12)
    torch.testing.assert_close(walked.grad_norm, reference.grad_norm, rtol=0, atol=1e-11)
    for key, value in reference.params.items():
        torch.testing.assert_close(walked.params[key], value, rtol=0, atol=1e-12)


def ignored(key):
    """A bias that batch norm removes has no gradient in any method, nor has what acts on it alone."""
    return "conv" in key and key.endswith("bias")


def gradients_of_three_meta_steps(optimizer):
    def gradient(i):
        return meta_gradient(optimizer, batch(seed=i), 2, "loop", noise=stacked_noise(optimizer, 2, i))[1]

    return largest_gradients(optimizer, gradient)


@pytest.mark.parametrize("name", ALL)
def test_every_meta_parameter_lives_except_in_md_released(name):
    dead: set[str] = set()
    for draw in range(1 if name == "md-released" else 12):  # a ReLU that is off in one draw is on in another
        most = gradients_of_three_meta_steps(create(name, alpha=0.05, seed=draw))
        still = {key for key, value in most.items() if not value.any()}
        dead = still if draw == 0 else dead & still
        if all(ignored(key) for key in dead):
            break
    if name == "md-released":
        assert any("heads" in key for key in dead)
        return
    assert [key for key in sorted(dead) if not ignored(key)] == [], NO_OP


def test_ninety_percent_of_the_released_map_is_dead():
    """At 84 pixels and any width nine tenths of θ_g get exactly no gradient; the map that trains has none of these."""
    shares, alive = {}, {}
    for name in ("md", "md-released"):
        optimizer = create(name, channels=16, size=84, inputs=3, ways=5, alpha=0.05)
        optimizer.float()
        tasks = [batch(1, size=84, inputs=3, ways=5, query=1, dtype=torch.float32, seed=i) for i in range(3)]
        most = largest_gradients(optimizer, lambda i, o=optimizer, t=tasks: meta_gradient(o, t[i], 1, "loop")[1])
        inside = {key: value for key, value in most.items() if key.startswith("g.")}
        count = sum(value.numel() for value in inside.values())
        shares[name] = sum(int((value == 0).sum()) for value in inside.values()) / count
        heads = [key for key in inside if key.startswith("g.heads") and key.replace("weight.0", "weight.1") in inside]
        heads = [key for key in heads if "weight" in key]  # of two modes or more
        alive[name] = sum(bool(inside[key].any()) for key in heads) / len(heads)
    assert shares["md-released"] > 0.85
    assert alive == {"md": 1.0, "md-released": 0.0}
    assert shares["md"] < shares["md-released"] / 2  # what ReLUs that are off leave


SIZES = [  # meta-parameters beside the start, 5-way; channels, positions the head sees, expected
    ("maml", 64, 25, 0),
    ("metasgd", 64, 25, 121_093),
    ("metasgd", 32, 25, 32_901),
    ("metacurvature", 64, 25, 2_589_803),
    ("md", 32, 25, 859_391),
    ("md", 64, 25, 3_447_535),
    ("md", 128, 25, 14_101_871),
    ("md-released", 64, 25, 3_447_535),
    ("warpgrad", 32, 25, 27_744),
    ("warpgrad", 64, 25, 110_784),
    ("warpgrad", 128, 25, 442_752),
    ("mtnet", 32, 25, 4 * 32**2 + 5**2 + 4 * 32 + 5),
    ("ecml", 32, 25, 0),
]


@pytest.mark.parametrize(("name", "channels", "features", "expected"), SIZES)
def test_published_numbers_of_meta_parameters(name, channels, features, expected):
    assert added(name, channels, features) == expected


def test_convex_map_is_small():
    """O(d): d numbers on the diagonal, and less than as many in the directions."""
    assert 121_093 < added("md-convex", 64, 25) < 2 * 121_093
