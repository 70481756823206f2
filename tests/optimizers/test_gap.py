"""GAP against the singular value decomposition itself, its derivative against differences near and at equal values."""

import pytest
import torch
from torch.nn import functional as F

from benchmark.adapt import adapt, support_gradient
from benchmark.engine import fused
from benchmark.metagrad import meta_gradient
from optimizers import BadOption
from optimizers import create as make
from optimizers.contract.kit import perturb
from optimizers.gap import scale_singular_values
from tests.optimizers.helpers import batch, create

M = torch.tensor([1.3, 0.7, 1.1, 0.4], dtype=torch.float64)


def written_out(g, m):
    """U diag(m) diag(s) Vᵀ, the i-th largest singular value times m_i."""
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    return u @ torch.diag(m * s) @ vh


def with_values(values, columns=7, seed=0, dtype=torch.float64):
    """A matrix [4, columns] with these singular values."""
    torch.manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0] for n in (4, columns))
    return (u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v[:, :4].mT).to(dtype)


def along(g, direction, m=M):
    jacobian = torch.func.jacrev(lambda x: scale_singular_values(x, m))(g)  # row by row, in reverse
    return torch.einsum("ijkl,kl->ij", jacobian, direction)


# The map and its derivative


@pytest.mark.parametrize(
    ("values", "step", "off"),
    [
        ([4, 3, 2, 1], 1e-5, 1e-8),
        ([4, 3, 3 - 1e-2, 1], 1e-6, 1e-6),
        ([4, 3, 3 - 1e-4, 1], 1e-8, 1e-4),
        ([4, 3, 3 - 1e-6, 1], 1e-9, 1e-3),
        ([4, 3, 2, 0], 1e-5, 1e-8),  # one zero has a frame of its own
        ([4, 3, 2, 1e-9], 1e-12, 1e-3),
        ([1e-12, 1e-13, 1e-14, 1e-15], 1e-19, 1e-4),
    ],
)
def test_derivative_against_differences_down_to_nearly_equal_values(values, step, off):
    g, direction = with_values(values), torch.randn(4, 7, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(scale_singular_values(g, M), written_out(g, M), rtol=1e-9, atol=1e-14 * values[0])
    numeric = (written_out(g + step * direction, M) - written_out(g - step * direction, M)) / (2 * step)
    assert float((along(g, direction) - numeric).norm() / numeric.norm()) < off


@pytest.mark.parametrize("values", [[4, 3, 3, 1], [3, 3, 3, 3], [4, 3, 0, 0], [0, 0, 0, 0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_equal_values_the_derivative_is_finite_and_that_of_held_frames(values, dtype):
    """There is none: F jumps where ranks change. Between the equal ones frames are held, P dG with P = U M Uᵀ."""
    g, direction = with_values(values, dtype=dtype), torch.randn(4, 7, dtype=dtype)
    m = M.to(dtype)
    found = along(g, direction, m)
    assert torch.isfinite(found).all()
    assert float(found.norm()) < 10 * float(direction.norm())
    if len(set(values)) == 1:
        u = torch.linalg.svd(g, full_matrices=False)[0]
        torch.testing.assert_close(found, u @ torch.diag(m) @ u.mT @ direction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", [[4, 3, 2, 1], [4, 3, 3, 1], [3, 3, 3, 3], [4, 3, 0, 0], [0, 0, 0, 0]])
def test_equal_factors_are_a_step_size_even_at_equal_values(values):
    g, direction = with_values(values), torch.randn(4, 7, dtype=torch.float64)
    same = torch.full((4,), 0.7, dtype=torch.float64)
    torch.testing.assert_close(scale_singular_values(g, same), 0.7 * g, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(along(g, direction, same), 0.7 * direction, rtol=1e-12, atol=1e-12)


def test_the_bound_on_the_derivative():
    """|m_i − m_j| / √ε at the most, however close two values are; torch's own decomposition has no bound."""
    worst = 0.0
    for gap in torch.logspace(-12, -1, 45, dtype=torch.float64).tolist():
        found = along(with_values([4, 3, 3 - gap, 1]), torch.ones(4, 7, dtype=torch.float64))
        worst = max(worst, float(found.norm()))
    assert worst < 0.4 / torch.finfo(torch.float64).eps ** 0.5 * 28**0.5


def test_derivative_in_the_factors():
    g, m = with_values([4, 3, 2, 1]), M.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda factors: scale_singular_values(g, factors), [m])


# The method


def unfolded(method, update):
    """What a step must do to each weight of four axes, by the decomposition; nothing else is touched."""
    factors = {}
    for members, m in zip(method.groups, method.factors(), strict=True):
        factors |= dict(zip(members.names, m.detach(), strict=True))
    return {n: update(g, factors[n]) if n in factors else g for n, g in method_grads(method).items()}


def method_grads(method, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in method.start().items()}


def rows_scaled(g, m):
    flat = g.flatten(1)
    return (torch.diag(m) @ flat if len(flat) <= flat.shape[1] else flat @ torch.diag(m)).view_as(g)


@pytest.mark.parametrize(
    ("name", "update"),
    [
        ("gap", lambda g, m: written_out(g.flatten(1), m).view_as(g)),
        ("gap-released", lambda g, m: written_out(g.flatten(1), m).view_as(g)),
        ("gap-approx", rows_scaled),
    ],
)
def test_one_step(name, update):
    """Channels 12 on one input channel: the first layer's [12, 9] has more rows than columns, the others fewer."""
    method = create(name, channels=12, alpha=0.3)
    perturb(method, 0.3)
    expected, start = unfolded(method, update), method.start()
    moved = method.params(method.step(method.init_state(), method_grads(method), 0))
    assert sum(p.numel() for p in method.raw) == 9 + 3 * 12
    for n, value in moved.items():
        torch.testing.assert_close(value, start[n] - 0.3 * expected[n], rtol=1e-11, atol=1e-12)


def test_factors_are_positive_and_start_at_one():
    for name, value in (("gap", 1.0), ("gap-approx", 1.0), ("gap-released", 1.00061)):
        method = create(name)
        assert all(torch.allclose(m, torch.full_like(m, value), rtol=1e-5) for m in method.factors())
        for raw in method.raw:
            raw.data.fill_(-20.0)
        assert all((m > 0).all() for m in method.factors())
    assert all(float((raw - 0.928).detach().abs().max()) < 1e-12 for raw in create("gap-released").raw)


def test_where_no_weight_has_four_axes_matrices_are_preconditioned():
    method = make("gap", torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)))
    assert [members.names for members in method.groups] == [("0.weight",), ("1.weight",)]
    assert [members.names for members in create("gap", adapt="head").groups] == [("head.weight",)]


def test_with_nothing_to_precondition_it_is_refused():
    with pytest.raises(BadOption, match=r"none is among what adapts \(norm1\.weight, .*, norm4\.bias\)"):
        create("gap", adapt="norm*")


@pytest.mark.parametrize("channels", [4, 12])
def test_the_released_meta_gradient_is_that_of_a_constant_frame(channels):
    """Two steps by autograd with Ū of the detached gradient, K = 2, on the network written with plain operations.

    With 12 channels the first layer's gradient is tall, [12, 9], and what leaves the range of Ū [12, 9] is lost.
    """
    method, task = create("gap-released", alpha=0.5, channels=channels), batch(1)
    perturb(method, 0.2)
    x, y, qx, qy = task.support_x[0], task.support_y[0], task.query_x[0], task.query_y[0]
    leaves = dict(method.named_parameters())
    raw = dict(zip(method.raw.named_parameters(), method.groups, strict=True))
    factors = {n: F.softplus(2 * p[i]) / 2 for (_, p), each in raw.items() for i, n in enumerate(each.names)}
    phi = method.start()
    with fused.disabled(primitives=True):
        for _ in range(2):
            _, grads = support_gradient(method, phi, x, y, create_graph=True)
            updated = {}
            for n, g in grads.items():
                if n in factors:
                    flat = g.flatten(1)
                    u = torch.linalg.svd(flat.detach(), full_matrices=False).U
                    g = (u @ torch.diag(factors[n]) @ u.mT @ flat).view_as(g)
                updated[n] = phi[n] - 0.5 * g
            phi = updated
        loss = F.cross_entropy(method.predict(phi, qx), qy)
        expected = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    _, found = meta_gradient(method, task, 2, "loop")
    for (n, _), gradient in zip(leaves.items(), expected, strict=True):
        torch.testing.assert_close(found[n], gradient, rtol=1e-8, atol=1e-11)


def test_gap_and_its_released_form_walk_alike_and_learn_differently():
    task, walks, gradients = batch(1), [], []
    for name in ("gap", "gap-released"):
        method = create(name, alpha=0.3)
        for raw in method.raw:
            raw.data = torch.linspace(-1, 1, raw.shape[1], dtype=raw.dtype).expand_as(raw).clone()
        walks.append(adapt(method, task.support_x[0], task.support_y[0], 3).params)
        gradients.append(meta_gradient(method, task, 2, "loop")[1])
    for n, value in walks[0].items():
        torch.testing.assert_close(walks[1][n], value, rtol=1e-9, atol=1e-11)
    apart = [float((gradients[1][n] - g).norm() / g.norm()) for n, g in gradients[0].items() if "conv2.weight" in n]
    assert min(apart) > 1e-3
