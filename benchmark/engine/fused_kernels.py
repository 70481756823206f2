"""The arithmetic of :mod:`benchmark.engine.fused`: forward, gradient and second derivative of a block by hand.

Everything is in channels-last layout, where torch's pooling and batch-norm kernels run along the channels with whole
vectors (pooling is 14 times faster than channels first), and large batches go through in pieces that stay in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

EPS = 1e-5
PIECE_BYTES = 9 * 2**20
"""Size of a convolution's output above which a batch is taken in pieces."""
FEW_VALUES = 2**17
"""Size of a convolution's output up to which one call more costs more than one pass over memory more."""
FEW_ROWS = 2**9
"""How many values per channel may be added up one after another: more lose digits in float32."""

_aten = torch.ops.aten
_CHANNELS_LAST = torch.channels_last


class Kept(NamedTuple):
    """What the forward pass leaves for the gradient: y is the convolution's output."""

    out: Tensor
    pooled: Tensor
    """y at the maxima, [N, C, H/2, W/2]."""
    indices: Tensor
    mean: Tensor
    """Of y, per channel, [C]."""
    rstd: Tensor
    """1 / √(variance of y + ε), [C]."""


# The convolution


def last(x: Tensor) -> Tensor:
    """`x` with its channels next to each other in memory, also where there is only one."""
    if x.stride(1) == 1 and x.is_contiguous(memory_format=_CHANNELS_LAST):
        return x
    return torch.empty_like(x, memory_format=_CHANNELS_LAST).copy_(x)


def conv(x: Tensor, weight: Tensor) -> Tensor:
    return last(torch.conv2d(x, weight, None, 1, 1))


def conv_backward(g: Tensor, x: Tensor, weight: Tensor, want_x: bool, want_weight: bool) -> tuple[Any, Any]:
    """The gradient of ``conv(x, weight)`` for an incoming `g`: what is wanted of (x, weight)."""
    if not (want_x or want_weight):
        return None, None
    return _aten.convolution_backward(
        g, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [want_x, want_weight, False]
    )[:2]


def cuts(x: Tensor, channels: int) -> list[slice]:
    """The pieces in which a batch `x` goes through a convolution with so many output channels."""
    count, _, height, width = x.shape
    size = max(1, PIECE_BYTES // (channels * height * width * x.element_size()))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _joined(pieces: list[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else None if pieces[0] is None else torch.cat(pieces)


def _summed(pieces: list[Any]) -> Any:
    total = pieces[0]
    for piece in pieces[1:] if total is not None else []:
        total += piece
    return total


# Batch norm and pooling


def rows(x: Tensor) -> int:
    """Values per channel."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def _columns(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, W·C, H, 1], a view: sums over few values, added up afterwards, lose less in float32."""
    count, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(count, height, width * channels, 1).permute(0, 2, 1, 3)


def _wide(v: Tensor, width: int) -> Tensor:
    return v.expand(width, len(v)).reshape(-1)


def _sums(u: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel Σ u ŷ and Σ u, in one pass; ŷ = (y − μ) r."""
    mask = [False, True, True]
    if rows(y) <= FEW_ROWS or y.shape[2] == 1:
        return _aten.native_batch_norm_backward(u, y, None, None, None, mean, rstd, True, EPS, mask)[1:]
    wide = _wide(mean, y.shape[3]), _wide(rstd, y.shape[3])
    found = _aten.native_batch_norm_backward(_columns(u), _columns(y), None, None, None, *wide, True, EPS, mask)
    return found[1].view(-1, len(mean)).sum(0), found[2].view(-1, len(mean)).sum(0)


def _statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel in equal parts of `y`, each [parts, C]."""
    whole = rows(y) <= FEW_ROWS or y.shape[2] == 1
    mean, variance = torch.batch_norm_update_stats(y if whole else _columns(y), None, None, 0.0)
    return mean.view(-1, y.shape[1]), variance.view(-1, y.shape[1])


def _merged(statistics: list[tuple[Tensor, Tensor]], counts: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of the whole from those of its parts, where piece i has `counts[i]` images."""
    means, variances = statistics[0]
    if len(statistics) == 1:
        if len(means) == 1:
            return means[0], variances[0]
        spread, mean = torch.var_mean(means, 0, correction=0)
        return mean, spread.add_(variances.mean(0))
    share = means.new_tensor(
        [n / sum(counts) / len(m) for n, (m, _) in zip(counts, statistics, strict=True) for _ in m]
    )
    share = share[:, None]
    means, variances = (torch.cat(column) for column in zip(*statistics, strict=True))
    mean = (means * share).sum(0)
    return mean, ((variances + (means - mean).square()) * share).sum(0)


def _unpool(values: Tensor, like: Tensor, indices: Tensor) -> Tensor:
    """Each value where its maximum was found, zero elsewhere."""
    return _aten.max_pool2d_with_indices_backward(values, like, [2, 2], [2, 2], [0, 0], [1, 1], False, indices)


def _pool_same(u: Tensor, indices: Tensor) -> Tensor:
    """`u` where `indices` found the maxima of another tensor."""
    count, channels, height, width = indices.shape
    flat = u.permute(0, 2, 3, 1).reshape(count, -1, channels)
    chosen = indices.permute(0, 2, 3, 1).reshape(count, -1, channels)
    return flat.gather(1, chosen).view(count, height, width, channels).permute(0, 3, 1, 2)


def _c(v: Tensor) -> Tensor:
    """Per-channel values [C] in a shape that broadcasts over [N, C, H, W]."""
    return v.view(-1, 1, 1)


def _masked(g: Tensor, out: Tensor) -> Tensor:
    return _aten.threshold_backward(g, out, 0)


# The block


def forward(
    x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, *, keep: bool
) -> tuple[Kept, list[Tensor], list[slice]]:
    """What is kept, and the pieces of the convolution's output (none unless `keep`)."""
    x = last(x)
    flip = _c(torch.where(gamma < 0, -1, 1)).to(x.dtype) if float(gamma.min()) < 0 else None
    kept, statistics, maxima = [], [], []
    pieces = cuts(x, len(weight))
    for piece in pieces:
        y = conv(x[piece] if len(pieces) > 1 else x, weight)
        statistics.append(_statistics(y))
        maxima.append(_aten.max_pool2d_with_indices(y if flip is None else y * flip, [2, 2]))
        if keep:
            kept.append(y)
    pooled, indices = (_joined(list(column)) for column in zip(*maxima, strict=True))
    if flip is not None:
        pooled = pooled.mul_(flip)
    mean, variance = _merged(statistics, [piece.stop - piece.start for piece in pieces])
    out = _aten.native_batch_norm(pooled, gamma, beta, mean, variance, False, 0.0, EPS)[0].relu_()
    return Kept(out, pooled, indices, mean, (variance + EPS).rsqrt_()), kept, pieces


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    gamma: Tensor,
    at: Kept,
    ys: tuple[Tensor, ...],
    also: tuple[Tensor | None, ...],
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor, list[Tensor]]:
    """(∂x, ∂weight, ∂γ, ∂β) for an incoming `grad`, and ∂y in pieces; `also` are further cotangents of the ys."""
    x = last(x)
    masked = _masked(last(grad), at.out)
    if len(ys) == 1 and rows(x) <= FEW_ROWS and ys[0].numel() <= FEW_VALUES:
        d_y, d_gamma, d_beta = _aten.native_batch_norm_backward(
            _unpool(masked, ys[0], at.indices), ys[0], gamma, None, None, at.mean, at.rstd, True, EPS, [True] * 3
        )
        if also[0] is not None:
            d_y.add_(also[0])
        return (*conv_backward(d_y, x, weight, *wanted), d_gamma, d_beta, [d_y])
    n = rows(x)
    d_gamma, d_beta = _sums(masked, at.pooled, at.mean, at.rstd)
    scale = gamma * at.rstd
    linear = scale * at.rstd * d_gamma / -n
    constant = torch.addcmul(scale * d_beta / -n, linear, at.mean, value=-1)
    masked = masked * _c(scale)
    d_ys, found = [], []
    for piece, y, extra in zip(cuts(x, len(weight)), ys, also, strict=True):
        d_y = _unpool(masked[piece], y, at.indices[piece]).addcmul_(y, _c(linear)).add_(_c(constant))
        if extra is not None:
            d_y.add_(extra)
        found.append(conv_backward(d_y, x[piece], weight, *wanted))
        d_ys.append(d_y)
    return _joined([f[0] for f in found]), _summed([f[1] for f in found]), d_gamma, d_beta, d_ys


def second(
    cotangents: tuple[Tensor | None, ...],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    gamma: Tensor,
    at: Kept,
    d_gamma: Tensor,
    d_beta: Tensor,
    ys: tuple[Tensor, ...],
    d_ys: tuple[Tensor, ...],
) -> tuple[Any, ...]:
    """The derivative of :func:`backward` for `cotangents` (u_x, u_weight, a, b) of its (∂x, ∂weight, ∂γ, ∂β).

    Returns the cotangents of (grad, x, weight, γ, *ys); see :mod:`benchmark.engine.fused` for the formulas.
    """
    u_x, u_weight, a, b = cotangents
    x, n = last(x), rows(x)
    masked = _masked(last(grad), at.out)
    scale = gamma * at.rstd  # κ
    pieces = cuts(x, len(weight))
    u_x = None if u_x is None else last(u_x)
    zero = torch.zeros_like(at.mean)
    q = u_mean = zero
    us, pooled_u = [], None
    if u_x is not None or u_weight is not None:
        # u, the cotangent of ∂y, from those of ∂x = convᵀ(∂y, weight) and of ∂weight = ∂y ⋆ x
        us = [_cotangent(x[piece], weight, None if u_x is None else u_x[piece], u_weight) for piece in pieces]
        sums = [_sums(u, y, at.mean, at.rstd) for u, y in zip(us, ys, strict=True)]
        q, u_mean = (_summed(list(column)).div_(n) for column in zip(*sums, strict=True))
        pooled_u = _joined([_pool_same(u, at.indices[piece]) for u, piece in zip(us, pieces, strict=True)])
    t = torch.addcmul(zero if a is None else a, scale, q, value=-1)
    # the incoming gradient: κ (P(u) − ū) + t h + b
    by_h = t * at.rstd
    constant = torch.addcmul(zero if b is None else b, scale, u_mean, value=-1).addcmul_(by_h, at.mean, value=-1)
    d_grad = torch.addcmul(_c(constant), at.pooled, _c(by_h))
    inner = (d_beta * u_mean).addcmul_(d_gamma, q).neg_()  # A
    if pooled_u is not None:
        d_grad.addcmul_(pooled_u, _c(scale))
        inner += (pooled_u * masked).sum((0, 2, 3))
    d_grad = _masked(d_grad, at.out)
    # y
    by_u = (at.rstd * scale).mul_(d_gamma).div_(-n)
    by_y = torch.addcmul(inner, d_gamma, q, value=-1).mul_(scale).addcmul_(t, d_gamma).mul_(at.rstd**2).div_(-n)
    constant = torch.addcmul(t * d_beta, scale * d_gamma, u_mean, value=-1).mul_(at.rstd).div_(-n)
    constant.addcmul_(by_y, at.mean, value=-1)
    masked = masked * _c(by_h)
    totals, found = [], []
    for i, (piece, y, d_y) in enumerate(zip(pieces, ys, d_ys, strict=True)):
        total = _unpool(masked[piece], y, at.indices[piece]).addcmul_(y, _c(by_y)).add_(_c(constant))
        totals.append(total.addcmul_(us[i], _c(by_u)) if us else total)
        there = x[piece] if u_x is None else u_x[piece]
        by = weight if u_weight is None else u_weight
        found.append(conv_backward(d_y, there, by, u_weight is not None, u_x is not None))
    return d_grad, _joined([f[0] for f in found]), _summed([f[1] for f in found]), at.rstd * inner, *totals


def _cotangent(x: Tensor, weight: Tensor, u_x: Tensor | None, u_weight: Tensor | None) -> Tensor:
    """conv(x, u_weight) + conv(u_x, weight), where they are."""
    if u_weight is None:
        return conv(u_x, weight)  # type: ignore[arg-type]
    first = conv(x, u_weight)
    return first if u_x is None else first.add_(conv(u_x, weight))
