"""MetaProxNet: its functions against numpy's interpolation, its steps against soft thresholding and its bases."""

import numpy as np
import pytest
import torch

from benchmark.adapt import adapt, support_gradient
from benchmark.metagrad import meta_gradient
from optimizers import BadOption
from optimizers.contract.kit import perturb
from tests.optimizers.helpers import batch, create

STEPS = 3
BASES = {"maml": "maml", "metasgd": "metasgd", "metacurvature": "metacurvature"}


def line(x, points, values):
    """Linear interpolation, the first and the last piece continued."""
    inside = np.interp(x, points, values)
    left = values[0] + (x - points[0]) * (values[1] - values[0]) / (points[1] - points[0])
    right = values[-1] + (x - points[-1]) * (values[-1] - values[-2]) / (points[-1] - points[-2])
    return left if x < points[0] else right if x > points[-1] else inside


@pytest.mark.parametrize(("pieces", "reach"), [(5, 2.0), (1, 1.0), (4, 0.5)])
def test_each_coordinate_has_its_own_piecewise_linear_function(pieces, reach):
    method = create("metaproxnet", base="maml", channels=2, horizon=2, pieces=pieces, reach=reach)
    perturb(method, 0.5)
    points = np.linspace(-reach, reach, pieces + 1)
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * reach * torch.randn(method.values.shape[1], generator=generator, dtype=torch.float64)
    x[:3] = torch.tensor([0.0, reach, -reach])
    for k in (0, 1, 7):  # beyond the horizon the last ones
        values = method.values[min(k, 1)].detach().numpy()
        expected = [line(float(each), points, own) for each, own in zip(x, values, strict=True)]
        assert method.prox(x, k).tolist() == pytest.approx(expected, abs=1e-12)


def test_soft_thresholding_is_among_them():
    """The prior λ|δ| with λ a point of the grid: every step is one of ISTA around the start, in units of α."""
    alpha, threshold, task = 0.5, 0.4, batch(1)
    method = create("metaproxnet", base="maml", alpha=alpha, horizon=1)
    points = torch.linspace(-2, 2, 6, dtype=torch.float64)
    method.values.data[:] = points.sign() * (points.abs() - threshold).clamp_min(0)
    x, y = task.support_x[0], task.support_y[0]
    start = {name: value.detach() for name, value in method.start().items()}
    phi = start
    for _ in range(STEPS):
        grads = support_gradient(method, phi, x, y, create_graph=False)[1]
        moved = {n: p - alpha * grads[n] - start[n] for n, p in phi.items()}
        phi = {n: start[n] + v.sign() * (v.abs() - alpha * threshold).clamp_min(0) for n, v in moved.items()}
    found = adapt(method, x, y, STEPS).params
    for name, value in phi.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
    stayed = sum(int((phi[n] == p).sum()) for n, p in start.items())
    assert 0 < stayed < sum(p.numel() for p in start.values())


@pytest.mark.parametrize("base", BASES)
def test_with_the_identity_it_is_its_base(base):
    """Trajectory and meta-gradient, away from the base's own start."""
    method, plain, task = create("metaproxnet", base=base, alpha=0.2), create(base, alpha=0.2), batch(1)
    perturb(plain, 0.1)
    own = dict(method.named_parameters())
    for name, value in plain.named_parameters():
        if not name.startswith("rate."):
            own[name].data = value.detach().clone()
    if base == "metasgd":
        method.log_rate.data = torch.cat([value.detach().flatten() for value in plain.rate.values()])
    walks = [adapt(each, task.support_x[0], task.support_y[0], STEPS).params for each in (method, plain)]
    for name, value in walks[1].items():
        torch.testing.assert_close(walks[0][name], value, rtol=1e-10, atol=1e-12)
    found, expected = (meta_gradient(each, task, STEPS, "loop")[1] for each in (method, plain))
    rates = [name for name in expected if name.startswith("rate.")]
    for name in expected.keys() - set(rates):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-8, atol=1e-11)
    if rates:
        whole = torch.cat([expected[name].flatten() for name in rates])
        torch.testing.assert_close(found["log_rate"], whole, rtol=1e-8, atol=1e-11)
    assert found["values"][:STEPS].any(-1).any(-1).all()  # and the proximal maps train
    assert not found["values"][STEPS:].any()


def test_its_size_is_that_of_the_public_code():
    """Six values for each coordinate in each of five steps."""
    method = create("metaproxnet", base="maml")
    size = sum(value.numel() for value in method.start().values())
    assert method.values.shape == (5, size, 6)
    assert method.values[3, 7].tolist() == pytest.approx([-2, -1.2, -0.4, 0.4, 1.2, 2])
    assert create("metaproxnet", base="maml", adapt="head").values.shape[1] < size


@pytest.mark.parametrize("options", [{"horizon": 0}, {"pieces": 0}, {"reach": 0.0}])
def test_its_errors_say_what_to_do(options):
    with pytest.raises(BadOption, match="horizon, pieces and reach must be positive"):
        create("metaproxnet", **options)
