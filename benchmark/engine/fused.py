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
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from benchmark.engine import fused_kernels, norms
from benchmark.engine.fused_kernels import Kept
from benchmark.engine.norms import BatchNorm, Norm, formulation

_aten = torch.ops.aten
_CHANNELS_LAST = torch.channels_last


@contextlib.contextmanager
def disabled(*, primitives: bool = False) -> Iterator[None]:
    """Use the plain formulation inside this block; with `primitives`, batch norm too is written out.

    torch's own batch norm has no batching rule for pulling a batched cotangent through its second derivative.
    """
    token = formulation.set("primitives" if primitives else "plain")
    try:
        yield
    finally:
        formulation.reset(token)


def block(
    x: Tensor, conv: nn.Module, inserted: nn.Module | None, norm: Norm, pool: int, reference: int | None = None
) -> Tensor:
    """max_pool2d(relu(norm(inserted(conv(x)))), pool), by fewer operations where the layers are of known kinds.

    These are a 3×3 convolution, and a 1×1 convolution inserted between it and the norm or nothing. Such a 1×1
    convolution is one matrix product with the weight before it, and the convolution's bias, which a batch norm takes
    away again, is left out. `reference`: how many images, the first ones, give the statistics of a batch norm.
    """
    if type(conv) is not nn.Conv2d or not (inserted is None or _is_mix(inserted)):
        x = conv(x)
        return F.max_pool2d(F.relu(norm(x if inserted is None else inserted(x), reference)), pool)
    weight, bias = conv.weight, conv.bias  # [C, C_in, 3, 3], [C]
    if inserted is not None:
        mix: Any = inserted.weight  # [C, C, 1, 1]
        weight = (mix.flatten(1) @ weight.flatten(1)).view_as(weight)
        bias = None if bias is None else mix.flatten(1) @ bias
    if not isinstance(norm, BatchNorm):
        return norms.conv_norm_relu_pool(x, weight, bias, norm, pool, reference)
    if reference is not None:
        return norms.conv_norm_relu_pool(x, weight, None, norm, pool, reference)
    if pool == 2 and usable(x, len(weight)):
        return conv_norm_relu_pool(x, weight, norm.weight, norm.bias)
    return F.max_pool2d(F.relu(norm(F.conv2d(x, weight, None, padding=1))), pool)


def _is_mix(layer: nn.Module) -> bool:
    """Whether it is a 1×1 convolution that is one matrix over the channels, and no more."""
    if type(layer) is not nn.Conv2d or layer.bias is not None:
        return False
    return layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1


def usable(x: Tensor, channels: int) -> bool:
    """Whether the fused operation serves `x`: CPU, float32 or float64, and not :func:`disabled`.

    Nor for a single output channel, whose layout is channels first and channels last at once: torch's kernels then
    disagree on which it is, and the second derivative comes out wrong.
    """
    served = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and channels > 1
    return served and formulation.get() == "fused"


def conv_norm_relu_pool(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """max_pool2d(relu(batch_norm(conv2d(x, weight, padding=1), γ, β)), 2): [N, C_in, H, W] → [N, C, H/2, W/2]."""
    if torch.is_grad_enabled():
        return _Block.apply(x, weight, gamma, beta)[0]
    return fused_kernels.forward(x, weight, gamma, beta, keep=False)[0].out


def _one_by_one(apply: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    """The vmap rule of a function that is not worth batching: one call for each element, results stacked."""
    rows = []
    for i in range(info.batch_size):
        chosen = [a.select(d, i) if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True)]
        rows.append(apply(*chosen))
    columns = list(zip(*rows, strict=True))
    stacked = tuple(None if column[0] is None else torch.stack(column) for column in columns)
    return stacked, tuple(None if each is None else 0 for each in stacked)


class _Block(Function):
    """(x, weight, γ, β) → (out, pooled, indices, mean, rstd, *ys), y in pieces."""

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        kept, ys, _ = fused_kernels.forward(*inputs, keep=True)
        return (*kept, *ys)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:3], *output)
        ctx.mark_non_differentiable(*output[1:5])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, gamma, out, *rest = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        grad = torch.zeros_like(out) if grad is None else grad
        return _BlockBackward.apply(
            grad, x, weight, gamma, out, *rest, *others[4:], wanted[0], wanted[1], torch.is_grad_enabled()
        )[:4]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_Block.apply, info, in_dims, args)


class _BlockBackward(Function):
    """(grad, x, weight, γ, *kept, *ys, *further cotangents of ys, want x?, want weight?, again?) → its gradient.

    The gradient is (∂x, ∂weight, ∂γ, ∂β), followed, where it may be differentiated *again*, by ∂y in pieces.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
        *tensors, want_x, want_weight, again = inputs
        ys, also = _halves(tensors[9:])
        grad, x, weight, gamma = tensors[:4]
        kept, wanted = Kept(*tensors[4:9]), (want_x, want_weight)
        found = fused_kernels.backward(grad, x, weight, gamma, kept, ys, also, wanted)
        return (*found[:4], *found[4]) if again else found[:4]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.set_materialize_grads(False)
        if inputs[-1]:
            ctx.mark_non_differentiable(*output[4:])
            ctx.pieces = len(output) - 4
            ctx.save_for_backward(*inputs[: 9 + ctx.pieces], *output[2:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:
        found = _BlockSecond.apply(*cotangents[:4], *ctx.saved_tensors)
        return (*found[:4], *[None] * 5, *found[4:], *[None] * (ctx.pieces + 3))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_BlockBackward.apply, info, in_dims, args)


class _BlockSecond(Function):
    """The derivative of :class:`_BlockBackward`: cotangents of (grad, x, weight, γ, *ys)."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
        pieces = (len(inputs) - 15) // 2
        ys, (d_gamma, d_beta), d_ys = inputs[13:][:pieces], inputs[13 + pieces :][:2], inputs[15 + pieces :]
        cotangents, (grad, x, weight, gamma), kept = inputs[:4], inputs[4:8], Kept(*inputs[8:13])
        return fused_kernels.second(cotangents, grad, x, weight, gamma, kept, d_gamma, d_beta, ys, d_ys)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise NotImplementedError("the fused block has no third derivative; use it inside fused.disabled()")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _one_by_one(_BlockSecond.apply, info, in_dims, args)


for _function in (_Block, _BlockBackward, _BlockSecond):  # torch reads it at every call; without this it is made anew
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _halves(values: list[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(values[: len(values) // 2]), tuple(values[len(values) // 2 :])
