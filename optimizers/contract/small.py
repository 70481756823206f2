"""What the contract kit tries a method on: a small smooth network, with batch norm or without, and small tasks.

The batch norm is written out from primitives, whose derivatives of any order are right under any transform, or is
torch's own, whose are not (see :mod:`optimizers.ecml`). That a method finds the same with both is a rule of the kit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optimizers.base import Task

NORMS = ("primitives", "torch")


class SmallNorm(nn.Module):
    """γ (x − μ) / √(σ² + ε) + β, with mean μ and variance σ² of each channel over the batch and all positions."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(channels))
        self.bias = nn.Parameter(0.2 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] → same
        if self.kind == "torch":
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=1e-5)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = (x - mean).pow(2).mean((0, 2, 3), keepdim=True)
        return self.weight[:, None, None] * (x - mean) / (variance + 1e-5).sqrt() + self.bias[:, None, None]


class SmallNetwork(nn.Module):
    """Two convolutions and a linear layer, smooth: [N, 1, 8, 8] → [N, 3].

    Without `norm` every parameter matters. With it, ``"primitives"`` or ``"torch"``, a batch norm follows each
    convolution, whose bias it removes.
    """

    def __init__(self, norm: str | None = None) -> None:
        super().__init__()
        self.inserted = nn.ModuleDict()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.norm2 = (SmallNorm(4, norm) if norm else nn.Identity() for _ in range(2))
        self.head = nn.Linear(16, 3)

    def places(self, kind: str) -> dict[str, int]:
        prefix = {"layer": "conv", "activation": "activation", "block": "block"}.get(kind)
        return {f"{prefix}{i}": 4 for i in (1, 2)} if prefix else {"head": 3}

    def insert(self, place: str, layer: nn.Module) -> None:
        self.inserted[place] = layer

    def _at(self, place: str, x: Tensor) -> Tensor:
        return self.inserted[place](x) if place in self.inserted else x

    def forward(self, x: Tensor) -> Tensor:
        for i, conv, norm in ((1, self.conv1, self.norm1), (2, self.conv2, self.norm2)):
            x = self._at(f"activation{i}", norm(self._at(f"conv{i}", conv(x))))
            x = F.avg_pool2d(F.softplus(x), 2)
            x = self._at(f"block{i}", x)
        return self._at("head", self.head(x.flatten(1)))


def small_network(dtype: torch.dtype = torch.float64, seed: int = 0, *, norm: str | None = None) -> SmallNetwork:
    """The kit's network; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallNetwork(norm).to(dtype)


def small_task(seed: int = 0, dtype: torch.dtype = torch.float64) -> Task:
    """Support and query of 6 random 8×8 images each in 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 6, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.arange(6) % 3
    return Task(x[0], y, x[1], y)
