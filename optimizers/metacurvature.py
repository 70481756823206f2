"""A learned Kronecker-factored preconditioner: Meta-Curvature.

The gradient of a weight is multiplied along each of its modes by one small learned matrix: the full preconditioner
is their Kronecker product, which couples all entries of a tensor at the price of a few small matmuls. Factors are
unconstrained: nothing makes the preconditioner symmetric or positive definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State
from optimizers.tensors.modes import ShapeGroup, group_by_modes
from optimizers.tensors.products import mode_products


class MetaCurvature(InnerOptimizer):
    """φ_k = φ_{k−1} − α u with u = G ×₁ M_out ×₂ M_in ×₃ M_f (vectors: u = m ⊙ G)."""

    card = Card(
        title="Meta-Curvature (Kronecker PGD)",
        paper="Park, Oliva: Meta-Curvature. NeurIPS 2019",
        kind="preconditioner",
        bibtex="""
        @inproceedings{park2019metacurvature,
          author = {Park, Eunbyung and Oliva, Junier B.},
          title = {Meta-Curvature},
          booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
          year = {2019},
        }
        """,
        geometry="Kronecker",
        equation="φ_k = φ_{k−1} − α G ×₁ M_out ×₂ M_in ×₃ M_f; matrices: two modes; vectors: m ⊙ G",
        learned="The start φ_0; for each weight one square matrix per mode, for each vector one factor per entry; all "
        "start at the identity.",
        differences="The paper writes M_out G M_in for a linear layer; here the second factor is stored transposed, as "
        "a mode product, which is the same family with the same start. At 84 pixels nearly all of the "
        "meta-parameters are the classifier's one factor over its features.",
    )

    def __init__(self, network: nn.Module, **common: Any) -> None:
        super().__init__(network, **common)
        start = self.start()
        self.groups = group_by_modes(self.adapted, {name: value.shape for name, value in start.items()})
        self.factors = identity_factors(self.groups, start)

    def summaries(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for members, factors in zip(self.groups, self.factors, strict=True):
            assert isinstance(factors, nn.ParameterList)
            if len(members.modes) == 1:
                found |= {f"step size/{n}": self.alpha * m for n, m in zip(members.names, factors[0], strict=True)}
                continue
            for mode, factor in enumerate(factors):
                values = torch.linalg.svdvals(factor)  # [G, n]
                found |= {f"spectrum/{n} mode {mode}": s for n, s in zip(members.names, values, strict=True)}
        return found

    def step(self, state: State, grads: Params, k: int) -> State:
        return {"phi": self.descend(state["phi"], kronecker(self.groups, self.factors, grads))}


def identity_factors(groups: Sequence[ShapeGroup], start: Params) -> nn.ModuleList:
    """For each group its mode matrices [G, n, n], at the identity; for vectors one factor [G, n] of ones."""
    factors = nn.ModuleList()
    for members in groups:
        like, size = start[members.names[0]], len(members)
        if len(members.modes) == 1:
            made = [like.new_ones(size, *members.modes)]
        else:
            made = [torch.eye(n, dtype=like.dtype, device=like.device).repeat(size, 1, 1) for n in members.modes]
        factors.append(nn.ParameterList(made))
    return factors


def kronecker(groups: Sequence[ShapeGroup], factors: nn.ModuleList, grads: Params) -> dict[str, Tensor]:
    """G → u, keyed like it: the product of every tensor with its mode matrices."""
    out: dict[str, Tensor] = {}
    for members, matrices in zip(groups, factors, strict=True):
        assert isinstance(matrices, nn.ParameterList)
        stacked = members.stack(grads)  # [G, *modes]
        vectors = len(members.modes) == 1
        out |= members.split(stacked * matrices[0] if vectors else mode_products(stacked, list(matrices)))
    return out
