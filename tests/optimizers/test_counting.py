"""Multiply-adds, against counts by hand from each method's equations; leading modes are multiplied first."""

import itertools
import math

import pytest
import torch
from torch import nn

import optimizers
from benchmark import networks
from optimizers.counting import multiply_adds, step_multiply_adds
from optimizers.maps.convex import ConvexMap

WAYS, CHANNELS, SIDE = 5, 4, 16
WEIGHTS = [(4, 3, 9), (4, 4, 9), (4, 4, 9), (4, 4, 9), (5, 4)]
"""Of a CNN4 of 4 channels on 16×16 RGB, by their modes."""
VECTORS = [4] * 12 + [5]
"""A bias, and a scale and a shift of the batch norm, in each block; the classifier's bias."""
MASKED = sum(map(math.prod, WEIGHTS)) + 4 * 4 + 5
D = sum(map(math.prod, WEIGHTS)) + sum(VECTORS)


def made(name, **options):
    return optimizers.create(name, networks.create("cnn4", WAYS, (3, SIDE, SIDE), CHANNELS), **options)


def products(sizes, widths):
    """Σ_m of n₁ … n_m o_m … with the modes before m already o: a Kronecker product applied mode by mode."""
    return sum(math.prod(widths[:m]) * math.prod(sizes[m:]) * widths[m] for m in range(len(sizes)))


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda a, b, v: a @ b, 3 * 4 * 5),
        (lambda a, b, v: torch.stack([a, a]) @ torch.stack([b, b]), 2 * 3 * 4 * 5),
        (lambda a, b, v: torch.baddbmm(a[None, :, :1], a[None], b[None]), 3 * 4 * 5),
        (lambda a, b, v: a @ v, 3 * 4),
        (lambda a, b, v: torch.addmv(a[:, 0], a, v), 3 * 4),
        (lambda a, b, v: v @ v, 4),
        (lambda a, b, v: nn.functional.linear(v, a, a[:, 0]), 3 * 4),
        (lambda a, b, v: torch.einsum("ij,j,i->i", a, v, a[:, 0]), 3 * 4 + 3),
        (lambda a, b, v: nn.functional.conv2d(a[None, None], b[None, None, :2, :2]), 2 * 3 * 4),
        (lambda a, b, v: a * v, 12),
        (lambda a, b, v: a.square() + a**2, 24),
        (lambda a, b, v: a**0.5, 0),
        (lambda a, b, v: a - v, 0),
        (lambda a, b, v: a.sub(v, alpha=0.1), 12),
        (lambda a, b, v: torch.addcmul(v, a, a), 12),
        (lambda a, b, v: torch.addcmul(v, a, a, value=0.1), 24),
        (lambda a, b, v: v.exp().sigmoid().relu().sum(), 0),
        (lambda a, b, v: torch.arange(3) * 4, 0),
    ],
)
def test_what_counts(work, expected):
    assert multiply_adds(lambda: work(torch.ones(3, 4), torch.ones(4, 5), torch.ones(4))) == expected


def test_the_second_derivative_is_counted_too():
    """G = (A x) ⊗ x of ½ ‖A x‖²: A x forward, one product backward for A."""
    a, x = torch.randn(3, 4, requires_grad=True), torch.randn(4, 1)
    assert multiply_adds(lambda: torch.autograd.grad((a @ x).sum(), a), elementwise=False) == 12 + 12


@pytest.mark.parametrize("name", ["maml", "warpgrad", "ecml"])
def test_alpha_g_is_d(name):
    assert step_multiply_adds(made(name)) == D


def test_of_what_moves_alone():
    assert step_multiply_adds(made("maml", adapt="head")) == 5 * 4 + 5


@pytest.mark.parametrize("form", ["log", "free"])
def test_a_times_g_is_d(form):
    assert step_multiply_adds(made("metasgd", form=form)) == D


def test_mask_and_alpha():
    """mask ⊙ G wherever there is a mask (not in batch norm), and α times it."""
    optimizer = made("mtnet")
    noise = optimizer.noise(torch.Generator().manual_seed(0))
    assert step_multiply_adds(optimizer, noise) == D + MASKED
    assert step_multiply_adds(made("mtnet", mask=False)) == D


def test_two_moments():
    """β₁ m, (1 − β₁) G; β₂ v, (1 − β₂) G²; both over 1 − β², their ratio, times the rate; and β² twice a tensor."""
    assert step_multiply_adds(made("adam")) == (2 + 3 + 2 + 1 + 1) * D + 2 * len([*WEIGHTS, *VECTORS])


def test_kronecker_product():
    """G ×₁ M_out ×₂ M_in ×₃ M_f: each entry meets each row of each factor; vectors m ⊙ G; and α u."""
    weights = sum(math.prod(modes) * sum(modes) for modes in WEIGHTS)
    assert step_multiply_adds(made("metacurvature")) == weights + sum(VECTORS) + D


def sides():
    """(entries, rows, columns) of every tensor as MetaKFO sees it."""
    yield from ((math.prod(modes), *modes[-2:]) for modes in WEIGHTS)
    yield from ((n, n, 1) for n in VECTORS)


def test_learned_transform():
    """(LᵀL) X (RᵀR) as two products with L and two with R, and α u."""
    fixed = sum(n * 2 * (rows + columns) for n, rows, columns in sides()) + D
    assert step_multiply_adds(made("metakfo", adapting=False)) == fixed


def test_learned_transform_that_adapts():
    """Forward; ∂/∂L, ∂/∂R of ⟨G, A(G')⟩ through the four products, nothing being due for G'; A ← A + α² of it; A(G)."""
    one = sum(n * 2 * (rows + columns) for n, rows, columns in sides())
    through = sum(n * (rows + 2 * columns) for n, rows, columns in sides())
    inner = 2 * D  # G ⊙ A(G'), forward and backward
    moved = sum(rows**2 + columns**2 for _, rows, columns in sides())
    assert step_multiply_adds(made("metakfo")) == one + (one + through + inner) + moved + one + D


def test_convex_map():
    """D z + Uᵀ(s ⊙ sigmoid(U z + b)): U has modes [8, 8, 1] on a convolution, [8, 8] on a matrix, 64 on a vector."""
    wide = {1: (64,), 2: (8, 8), 3: (8, 8, 1)}
    there = sum(products(modes, wide[len(modes)]) for modes in WEIGHTS) + sum(64 * n for n in VECTORS)
    back = sum(products(wide[len(modes)], modes) for modes in WEIGHTS) + sum(64 * n for n in VECTORS)
    assert step_multiply_adds(made("md-convex")) == there + back + 64 + D + D


def test_convex_map_of_one_matrix():
    """z [3, 2]: 3·2·8 + 8·2·8 there, 8·8·3 + 3·8·2 back, 64 for s and 6 for D."""
    with torch.no_grad():
        z = {"w": torch.randn(3, 2)}
        g = ConvexMap(z)
        assert multiply_adds(lambda: g(z)) == (48 + 128) + (192 + 48) + 64 + 6


class Two(nn.Module):
    """Two matrices, a block each."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 16, bias=False), nn.Linear(24, 16, bias=False)


@pytest.mark.parametrize("name", ["md", "md-released"])
def test_block_iaf(name):
    """Encoder of block 1, link, decoder of block 2 with its two heads, z ⊙ σ(a) + m everywhere, α G."""
    first, second = ([(16, n), (8, n // 2), (4, n // 4), (2, n // 8)] for n in (8, 24))
    encoder = sum(products(a, b) for a, b in itertools.pairwise(first))
    link = math.prod(first[-1]) * math.prod(second[-1])
    decoder = sum(products(a, b) for a, b in itertools.pairwise(second[:0:-1])) + 2 * products(second[1], second[0])
    d = 16 * 8 + 16 * 24
    assert step_multiply_adds(optimizers.create(name, Two())) == encoder + link + decoder + d + d
