"""Normalisation of a convolution's output by the mean μ and the variance σ² of some of its values.

    γ (y − μ) / √(σ² + ε) + β,    γ and β per channel, ε = 1e-5

*Batch* norm takes μ and σ² of each channel over all positions of all images at hand, or of the first `reference` of
them alone: a support set that goes through the network in front of the query images then normalises them all, layer by
layer, and no query image sees another. *Group* norm (Wu & He, ECCV 2018) takes them over a group of channels of each
image by itself. No running statistics are kept anywhere.

Torch's batch norm is fast and has no right derivative under some transforms (see :mod:`benchmark.engine.fused`); all
else here is written from primitives, right to any order under all of them.
"""

from __future__ import annotations

from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.engine.fused_kernels import EPS

GROUPS = 8
"""The most groups of channels that group norm makes; as many as divide the width."""

formulation: ContextVar[str] = ContextVar("formulation", default="fused")
"""``fused``, ``plain`` or ``primitives``, see :func:`benchmark.engine.fused.disabled`."""


class Norm(nn.Module):
    """γ and β of one normalisation over [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def statistics(self, y: Tensor, reference: int | None = None) -> tuple[Tensor, Tensor]:
        """μ and 1/√(σ² + ε), in shapes that broadcast over y [N, C, H, W]."""
        raise NotImplementedError

    def flipped_statistics(self, y: Tensor, sign: Tensor, reference: int | None = None) -> tuple[Tensor, Tensor]:
        """For y whose channels have the `sign` ±1 [C]: ±μ and 1/√(σ² + ε) of y without them."""
        signs = sign.view(-1, 1, 1)
        mean, rstd = self.statistics(y * signs, reference)
        return mean * signs, rstd

    def forward(self, y: Tensor, reference: int | None = None) -> Tensor:  # [N, C, H, W] → same
        mean, rstd = self.statistics(y, reference)
        return torch.addcmul(self.bias.view(-1, 1, 1), (y - mean) * rstd, self.weight.view(-1, 1, 1))


class BatchNorm(Norm):
    """μ and σ² of each channel over the batch, or its first `reference` images, and all positions."""

    def statistics(self, y: Tensor, reference: int | None = None) -> tuple[Tensor, Tensor]:
        return _moments(y[:reference], (0, 2, 3))

    def flipped_statistics(self, y: Tensor, sign: Tensor, reference: int | None = None) -> tuple[Tensor, Tensor]:
        return self.statistics(y, reference)  # each channel by itself: its mean has its sign

    def forward(self, y: Tensor, reference: int | None = None) -> Tensor:
        if reference is None and formulation.get() != "primitives":
            return F.batch_norm(y, None, None, self.weight, self.bias, training=True, eps=EPS)
        return super().forward(y, reference)


class GroupNorm(Norm):
    """μ and σ² of each image's groups of channels; `reference` makes no difference."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.groups = max(n for n in range(1, GROUPS + 1) if channels % n == 0)

    def statistics(self, y: Tensor, reference: int | None = None) -> tuple[Tensor, Tensor]:
        count, channels = y.shape[:2]
        grouped = y.reshape(count, self.groups, channels // self.groups, *y.shape[2:])
        whole = (count, self.groups, channels // self.groups, 1, 1)
        mean, rstd = (each.expand(whole).reshape(count, channels, 1, 1) for each in _moments(grouped, (2, 3, 4)))
        return mean, rstd


def _moments(y: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and 1/√(variance + ε) over some axes, which stay with length 1."""
    mean = y.mean(over, keepdim=True)
    return mean, ((y - mean).square().mean(over, keepdim=True) + EPS).rsqrt()


def conv_norm_relu_pool(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, pool: int, reference: int | None
) -> Tensor:
    """max_pool2d(relu(norm(conv2d(x, weight, bias, padding=1))), pool): most of it on what pooling leaves.

    The normalisation is affine in each channel, so that it commutes with the maximum up to the sign of γ, which the
    convolution takes on: γ (y − μ) r = |γ| (±y − ±μ) r. μ and r are those of y, whose channels a group norm mixes.
    """
    sign = torch.where(norm.weight < 0, -1.0, 1.0).to(weight.dtype)
    y = F.conv2d(x, weight * sign.view(-1, 1, 1, 1), None if bias is None else bias * sign, padding=1)
    mean, rstd = norm.flipped_statistics(y, sign, reference)
    pooled = (F.max_pool2d(y, pool) - mean) * rstd
    return F.relu(torch.addcmul(norm.bias.view(-1, 1, 1), pooled, (norm.weight * sign).view(-1, 1, 1)))
