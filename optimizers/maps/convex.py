"""A mirror map that is one: the gradient of a strongly convex function.

    ψ(z) = ½ zᵀ D z + Σ_j s_j softplus(u_jᵀ z + b_j),    D > 0 diagonal, s > 0
    g(z) = ∇ψ(z) = D z + Uᵀ (s ⊙ sigmoid(U z + b))

Its Jacobian D + Uᵀ diag(s ⊙ σ') U is symmetric and at least D, whatever the parameters: g is strictly monotone, has
an inverse that is the gradient of ψ's conjugate, and every small step along −∇_φ L in z descends. The directions u_j
span all layers, so that what happens in one changes the geometry of all. On each tensor they are Kronecker products: U
maps every mode to a few coordinates by one small matrix and sums over tensors, so that an evaluation costs O(d). The
last matrix of each tensor starts at zero: U = 0 and g is the identity, and the gradient of that matrix is alive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from optimizers.tensors.modes import Shape, group_by_modes
from optimizers.tensors.products import Layer, chains, listed

WIDTH = 8
"""Directions per mode; J = WIDTH² in all."""


class ConvexMap(nn.Module):
    """g = ∇ψ for the tensors `start`, by name; exactly the identity at first."""

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        names = list(start)
        self.groups = group_by_modes(names, {name: tuple(value.shape) for name, value in start.items()})
        like = next(iter(start.values()))
        self.counts = [len(g) for g in self.groups]
        self.sizes = [len(g) * math.prod(g.modes) for g in self.groups]
        self.log_diagonal = nn.Parameter(like.new_zeros(sum(self.sizes)))  # group after group
        self.log_weight = nn.Parameter(like.new_zeros(WIDTH**2))
        self.bias = nn.Parameter(torch.randn(WIDTH**2).to(like))
        self.factors = nn.ModuleList()
        for members in self.groups:
            made = []
            for mode, (n, width) in enumerate(zip(members.modes, widths(members.modes), strict=True)):
                matrix = torch.randn(len(members), width, n) / math.sqrt(n)
                if mode == len(members.modes) - 1:
                    matrix = torch.zeros_like(matrix)
                made.append(nn.Parameter(matrix.to(like)))
            self.factors.append(nn.ParameterList(made))

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """z → φ = g(z), both keyed by name."""
        stacks = [members.stack(z) for members in self.groups]
        pull = self.log_weight.exp() * (self._project(stacks) + self.bias).sigmoid()  # [J]
        pulls = zip(pull.expand(sum(self.counts), -1).split(self.counts), self.groups, strict=True)
        codes = [pull.reshape(len(g), *widths(g.modes)) for pull, g in pulls]
        back = chains(codes, self._layers(transposed=True))
        phi: dict[str, Tensor] = {}
        for members, x, d, moved in zip(self.groups, stacks, self._diagonal(), back, strict=True):
            phi |= members.split(torch.addcmul(moved, d, x))
        return {name: phi[name] for name in z}

    def potential(self, z: Mapping[str, Tensor]) -> Tensor:
        """ψ(z), a scalar: forward is its gradient."""
        stacks = [members.stack(z) for members in self.groups]
        quadratic = [(d * x.square()).sum() / 2 for x, d in zip(stacks, self._diagonal(), strict=True)]
        ridge = self.log_weight.exp() * nn.functional.softplus(self._project(stacks) + self.bias)
        return torch.stack(quadratic).sum() + ridge.sum()

    def diagonal(self) -> dict[str, Tensor]:
        """D > 0, by name."""
        named: dict[str, Tensor] = {}
        for members, stacked in zip(self.groups, self._diagonal(), strict=True):
            named |= members.split(stacked)
        return named

    def _diagonal(self) -> list[Tensor]:
        """D > 0, stacked like z."""
        parts = self.log_diagonal.exp().split(self.sizes)
        return [part.view(len(g), *g.modes) for part, g in zip(parts, self.groups, strict=True)]

    def _project(self, stacks: list[Tensor]) -> Tensor:
        """U z, [J]."""
        return torch.cat([code.flatten(1) for code in chains(stacks, self._layers())]).sum(0)

    def _layers(self, transposed: bool = False) -> list[list[Layer]]:
        return [[Layer(listed(cast(nn.ParameterList, each)), transposed=transposed)] for each in self.factors]


def widths(modes: Shape) -> Shape:
    """Directions along each mode, WIDTH² in all: [8, 8, 1] of a convolution, [8, 8] of a matrix, [64] of a vector."""
    return (WIDTH**2,) if len(modes) == 1 else (WIDTH, WIDTH, *[1] * (len(modes) - 2))
