"""Convolution → batch norm → ReLU → 2×2 max-pool as one operation, with its first and second derivative by hand.

The inner loop differentiates a network twice. Left to autograd, most of that time goes into passes over memory: each
of batch norm, ReLU and pooling reads and writes whole activations, and again in the first and the second derivative.
Here they share their passes, in channels-last layout, and most of them run on a quarter of the size:

* The bias before a batch norm changes nothing and is left out.
* A batch norm is affine per channel, so it commutes with the maximum up to the sign of γ: pool first, then normalise
  and rectify what is left, a quarter of the values.
* With x the convolution's output, μ and r = 1/√(σ² + ε) its statistics over n values per channel, p = pooled x,
  h = (p − μ) r and y = relu(γ h + β), the gradient for an incoming G, masked by the ReLU, is, with κ = γ r::

      ∂β = Σ G,   ∂γ = Σ G h,   ∂x = κ [S(G) − ∂β/n − x̂ ∂γ/n]          x̂ = (x − μ) r, S: un-pooling

  and its own derivative, for cotangents u of ∂x, a of ∂γ and b of ∂β, with ū = mean u, q = mean(u x̂), P: pooling by
  the same choice, A = Σ P(u) G − ∂β ū − ∂γ q and t = a − κ q::

      G:  κ (P(u) − ū) + t h + b           γ:  r A
      x:  r S(t G) − (r κ ∂γ/n) u − r (t ∂β − κ ∂γ ū)/n − x̂ r (t ∂γ − κ ∂γ q + κ A)/n

* Large batches go through in pieces that stay in the cache.

The forward function also returns x, so that the second derivative can send its cotangent of x to the first backward
pass instead of going through the convolution once more by itself. Third derivatives are not offered. Under ``vmap`` the
tasks are taken one by one: correct, but the plain formulation is the one to use there, see :func:`disabled`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

EPS = 1e-5
PIECE_BYTES = 9 * 2**20
"""Size of a convolution's output above which a batch is taken in pieces."""

_formulation: ContextVar[str] = ContextVar("formulation", default="fused")
_aten = torch.ops.aten
_CHANNELS_LAST = torch.channels_last


@contextlib.contextmanager
def disabled(*, primitives: bool = False) -> Iterator[None]:
    """Use the plain formulation inside this block; with `primitives`, batch norm too is written out.

    torch's own batch norm has no batching rule for pulling a batched cotangent through its second derivative.
    """
    token = _formulation.set("primitives" if primitives else "plain")
    try:
        yield
    finally:
        _formulation.reset(token)


def usable(x: Tensor) -> bool:
    """Whether the fused operation serves `x`: CPU, float32 or float64, and not :func:`disabled`."""
    return _formulation.get() == "fused" and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """γ (x − μ) / √(σ² + ε) + β over [N, C, H, W] with the batch's statistics."""
    if _formulation.get() != "primitives":
        return F.batch_norm(x, None, None, gamma, beta, training=True, eps=EPS)
    centred = x - x.mean((0, 2, 3), keepdim=True)
    rstd = (centred.square().mean((0, 2, 3), keepdim=True) + EPS).rsqrt()
    return torch.addcmul(_c(beta), centred * rstd, _c(gamma))


def conv_norm_relu_pool(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """max_pool2d(relu(batch_norm(conv2d(x, weight, padding=1), γ, β)), 2): [N, C_in, H, W] → [N, C, H/2, W/2]."""
    if torch.is_grad_enabled():
        return _Block.apply(x, weight, gamma, beta)[0]
    return _forward(x, weight, gamma, beta, keep=False)[0]


# The convolution, channels last


def _last(x: Tensor) -> Tensor:
    """`x` with its channels next to each other in memory, also where there is only one."""
    if x.stride(1) == 1 and x.is_contiguous(memory_format=_CHANNELS_LAST):
        return x
    return torch.empty_like(x, memory_format=_CHANNELS_LAST).copy_(x)


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return _last(torch.conv2d(x, weight, None, 1, 1))


def _conv_backward(g: Tensor, x: Tensor, weight: Tensor, want_x: bool, want_weight: bool) -> tuple[Any, Any]:
    """The gradient of ``conv2d(x, weight)`` for an incoming `g`: what is wanted of (x, weight)."""
    if not (want_x or want_weight):
        return None, None
    found = _aten.convolution_backward(
        g, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [want_x, want_weight, False]
    )
    return found[0], found[1]


def _pieces(x: Tensor, channels: int) -> list[slice]:
    count, _, height, width = x.shape
    size = max(1, PIECE_BYTES // (channels * height * width * x.element_size()))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


# Batch norm and pooling


def _columns(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, W·C, H, 1], a view: sums over few values, added up afterwards, lose less in float32."""
    count, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(count, height, width * channels, 1).permute(0, 2, 1, 3)


def _sums(u: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel Σ u x̂ and Σ u, in one pass."""
    if x.shape[2] == 1:
        wide, spread = (u, x), (mean, rstd)
    else:
        wide, spread = (_columns(u), _columns(x)), (mean.repeat(x.shape[3]), rstd.repeat(x.shape[3]))
    _, product, total = _aten.native_batch_norm_backward(
        *wide, None, None, None, *spread, True, EPS, [False, True, True]
    )
    return product.view(-1, len(mean)).sum(0), total.view(-1, len(mean)).sum(0)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel in equal parts of `x`, each [parts, C]."""
    mean, variance = torch.batch_norm_update_stats(x if x.shape[2] == 1 else _columns(x), None, None, 0.0)
    return mean.view(-1, x.shape[1]), variance.view(-1, x.shape[1])


def _merge(statistics: list[tuple[Tensor, Tensor]], counts: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of the whole from those of its parts, where piece i has `counts[i]` images."""
    if len(statistics) == 1:
        means, variances = statistics[0]
        spread, mean = torch.var_mean(means, 0, correction=0)
        return mean, spread.add_(variances.mean(0))
    means, variances = (torch.cat(column) for column in zip(*statistics, strict=True))
    share = torch.tensor(counts, dtype=means.dtype).repeat_interleave(len(statistics[0][0]))[:, None]
    share /= share.sum()
    mean = (means * share).sum(0)
    return mean, ((variances + (means - mean).square()) * share).sum(0)


def _unpool(values: Tensor, like: Tensor, indices: Tensor) -> Tensor:
    """Each value where its maximum was found, zero elsewhere."""
    return _aten.max_pool2d_with_indices_backward(values, like, [2, 2], [2, 2], [0, 0], [1, 1], False, indices)


def _pool_same(u: Tensor, indices: Tensor) -> Tensor:
    """`u` where `indices` found the maxima of another tensor."""
    count, channels, height, width = indices.shape
    rows = u.permute(0, 2, 3, 1).reshape(count, -1, channels)
    chosen = indices.permute(0, 2, 3, 1).reshape(count, -1, channels)
    return rows.gather(1, chosen).view(count, height, width, channels).permute(0, 3, 1, 2)


def _c(v: Tensor) -> Tensor:
    """Per-channel values [C] in a shape that broadcasts over [N, C, H, W]."""
    return v[:, None, None]


def _masked(g: Tensor, out: Tensor) -> Tensor:
    return _aten.threshold_backward(g, out, 0)


def _forward(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
    """(out, pooled, indices, mean, rstd, *pieces of the convolution's output if `keep`)."""
    x = _last(x)
    count, _, height, width = x.shape
    shape = (count, len(weight), height // 2, width // 2)
    pooled = torch.empty(shape, dtype=x.dtype, memory_format=_CHANNELS_LAST)
    indices = torch.empty(shape, dtype=torch.int64, memory_format=_CHANNELS_LAST)
    flip = _c(torch.where(gamma < 0, -1.0, 1.0).to(x.dtype)) if bool((gamma < 0).any()) else None
    kept, statistics = [], []
    pieces = _pieces(x, len(weight))
    for piece in pieces:
        y = _conv(x[piece], weight)
        statistics.append(_statistics(y))
        chosen_by = y if flip is None else y * flip
        _aten.max_pool2d_with_indices.out(chosen_by, [2, 2], out=pooled[piece], indices=indices[piece])
        if keep:
            kept.append(y)
    if flip is not None:
        pooled.mul_(flip)
    mean, variance = _merge(statistics, [piece.stop - piece.start for piece in pieces])
    rstd = variance.add_(EPS).rsqrt_()
    scale = gamma * rstd
    out = torch.addcmul(_c(torch.addcmul(beta, mean, scale, value=-1)), pooled, _c(scale)).relu_()
    return (out, pooled, indices, mean, rstd, *kept)


class _Block(Function):
    """(x, weight, γ, β) → (out, pooled, indices, mean, rstd, *pieces of the convolution's output)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        return _forward(x, weight, gamma, beta, keep=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, gamma, _ = inputs
        ctx.save_for_backward(x, weight, gamma, *output)
        ctx.mark_non_differentiable(*output[1:5])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, gamma, out, pooled, indices, mean, rstd, *kept = ctx.saved_tensors
        if grad is None:
            grad = torch.zeros_like(out)
        wanted = ctx.needs_input_grad[:2]
        keep = torch.is_grad_enabled()
        found = _BlockBackward.apply(
            grad, x, weight, gamma, out, pooled, indices, mean, rstd, wanted, keep, len(kept), *kept, *others[4:]
        )
        return found[:4]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_Block.apply, info, in_dims, args)


class _BlockBackward(Function):
    """The gradient of :class:`_Block`: (∂x, ∂weight, ∂γ, ∂β, *pieces of the gradient at the convolution's output)."""

    @staticmethod
    def forward(
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        gamma: Tensor,
        out: Tensor,
        pooled: Tensor,
        indices: Tensor,
        mean: Tensor,
        rstd: Tensor,
        wanted: tuple[bool, bool],
        keep: bool,
        count: int,
        *pieces: Any,
    ) -> tuple[Tensor | None, ...]:
        kept, also = pieces[:count], pieces[count:]
        x, n = _last(x), _count(x)
        masked = _masked(_last(grad), out)
        d_gamma, d_beta = _sums(masked, pooled, mean, rstd)
        scale = gamma * rstd
        linear = scale * rstd * d_gamma / -n
        constant = torch.addcmul(scale * d_beta / -n, linear, mean, value=-1)
        masked = masked * _c(scale)
        d_x, d_kept = [], []
        d_weight: Tensor | None = None
        for piece, y, extra in zip(_pieces(x, len(weight)), kept, also, strict=True):
            d_y = _unpool(masked[piece], y, indices[piece]).addcmul_(y, _c(linear)).add_(_c(constant))
            if extra is not None:
                d_y.add_(extra)
            found = _conv_backward(d_y, x[piece], weight, *wanted)
            d_x.append(found[0])
            d_weight = found[1] if d_weight is None else d_weight.add_(found[1])
            if keep:
                d_kept.append(d_y)
        whole = None if not wanted[0] else d_x[0] if len(d_x) == 1 else torch.cat(d_x)
        return (whole, d_weight, d_gamma, d_beta, *d_kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        grad, x, weight, gamma, out, pooled, indices, mean, rstd, _, keep, count, *pieces = inputs
        ctx.count = count
        ctx.set_materialize_grads(False)
        if keep:
            ctx.mark_non_differentiable(*output[4:])
            tensors = (grad, x, weight, gamma, out, pooled, indices, mean, rstd, *output[2:4])
            ctx.save_for_backward(*tensors, *pieces[:count], *output[4:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:
        found = _BlockSecond.apply(ctx.count, *cotangents[:4], *ctx.saved_tensors)
        d_grad, d_x, d_weight, d_gamma, *d_y = found
        return (d_grad, d_x, d_weight, d_gamma, *[None] * 8, *d_y, *[None] * ctx.count)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_BlockBackward.apply, info, in_dims, args)


class _BlockSecond(Function):
    """The derivative of :class:`_BlockBackward`: cotangents of (grad, x, weight, γ, *convolution's output)."""

    @staticmethod
    def forward(
        count: int,
        u_x: Tensor | None,
        u_weight: Tensor | None,
        a: Tensor | None,
        b: Tensor | None,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        gamma: Tensor,
        out: Tensor,
        pooled: Tensor,
        indices: Tensor,
        mean: Tensor,
        rstd: Tensor,
        d_gamma: Tensor,
        d_beta: Tensor,
        *pieces: Tensor,
    ) -> tuple[Tensor | None, ...]:
        kept, d_kept = pieces[:count], pieces[count:]
        x, n = _last(x), _count(x)
        masked = _masked(_last(grad), out)
        scale = gamma * rstd
        cuts = _pieces(x, len(weight))
        # u: the cotangent of ∂y, from those of ∂x = convᵀ(∂y, weight) and of ∂weight = ∂y ⋆ x
        u_x = None if u_x is None else _last(u_x)
        u = [_cotangent(x[cut], weight, None if u_x is None else u_x[cut], u_weight) for cut in cuts]
        zero = torch.zeros_like(mean)
        q = u_mean = zero
        pooled_u = None
        if not (u_x is None and u_weight is None):
            sums = [_sums(each, y, mean, rstd) for each, y in zip(u, kept, strict=True)]
            q, u_mean = (torch.stack(column).sum(0) / n for column in zip(*sums, strict=True))
            parts = [_pool_same(each, indices[cut]) for each, cut in zip(u, cuts, strict=True)]
            pooled_u = parts[0] if len(parts) == 1 else torch.cat(parts)
        t = torch.addcmul(zero if a is None else a, scale, q, value=-1)
        # the incoming gradient: κ (P(u) − ū) + t h + b
        d_grad = torch.addcmul(_c((zero if b is None else b) - scale * u_mean - t * rstd * mean), pooled, _c(t * rstd))
        inner = -(d_beta * u_mean + d_gamma * q)  # A
        if pooled_u is not None:
            d_grad.addcmul_(pooled_u, _c(scale))
            inner = inner + (pooled_u * masked).sum((0, 2, 3))
        d_grad = _masked(d_grad, out)
        # x, where it is the convolution's output
        by_u = rstd * scale * d_gamma / -n
        by_y = rstd * rstd * (t * d_gamma + scale * (inner - d_gamma * q)) / -n
        constant = rstd * (t * d_beta - scale * d_gamma * u_mean) / -n - by_y * mean
        masked = masked * _c(rstd * t)
        d_y, d_x = [], []
        d_weight: Tensor | None = None
        for cut, y, each, d in zip(cuts, kept, u, d_kept, strict=True):
            total = _unpool(masked[cut], y, indices[cut]).addcmul_(y, _c(by_y)).add_(_c(constant))
            d_y.append(total if each is None else total.addcmul_(each, _c(by_u)))
            there = x[cut] if u_x is None else u_x[cut]
            found = _conv_backward(
                d, there, weight if u_weight is None else u_weight, u_weight is not None, u_x is not None
            )
            d_x.append(found[0])
            if found[1] is not None:
                d_weight = found[1] if d_weight is None else d_weight.add_(found[1])
        whole = None if d_x[0] is None else d_x[0] if len(d_x) == 1 else torch.cat(d_x)
        return (d_grad, whole, d_weight, rstd * inner, *d_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise NotImplementedError("the fused block has no third derivative; use it inside fused.disabled()")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_BlockSecond.apply, info, in_dims, args)


def _count(x: Tensor) -> int:
    """Values per channel."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def _cotangent(x: Tensor, weight: Tensor, u_x: Tensor | None, u_weight: Tensor | None) -> Any:
    """conv(x, u_weight) + conv(u_x, weight), where they are."""
    if u_weight is None:
        return None if u_x is None else _conv(u_x, weight)
    first = _conv(x, u_weight)
    return first if u_x is None else first.add_(_conv(u_x, weight))


def _one_by_one(apply: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    """The vmap rule of a function that is not worth batching: one call for each element, results stacked."""
    rows = []
    for i in range(info.batch_size):
        chosen = [a.select(d, i) if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True)]
        rows.append(apply(*chosen))
    columns = list(zip(*rows, strict=True))
    stacked = tuple(None if column[0] is None else torch.stack(column) for column in columns)
    return stacked, tuple(None if each is None else 0 for each in stacked)
