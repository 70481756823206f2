"""The blockIAF: an invertible map whose block i is scaled and shifted by what the blocks before it say.

    φ_i = z_i ⊙ σ(a_i) + m_i,   [a_i, m_i] = d_i(e_1(z_1), …, e_{i−1}(z_{i−1}))

Blocks are the layers of the network in order. All conditioners read z, none reads φ, so one evaluation is parallel
over blocks; the inverse is sequential. e_j encodes a block tensor by tensor; d_i is one dense layer, the *link*, from
the codes of all earlier blocks to the inputs of the block's decoders, a ReLU, and a decoder for each tensor
(:mod:`optimizers.maps.stacked_conditioner`). Block 1 has constant a and m. The map is exactly the identity at the
start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from optimizers.maps.released_weights import load_released
from optimizers.maps.stacked_conditioner import StackedConditioner

__all__ = ["BlockIAF", "load_released"]


class BlockIAF(StackedConditioner):
    """φ = g(z) for the tensors `start` (by name) in `blocks` (names in order, block by block).

    Parameters
    ----------
    start:
        A dual point at which the map is set up: its shapes are those of z.
    blocks:
        Names of the tensors of each block; together they are all of `start`.
    sigma:
        Scale as a function of a: ``exp``, or ``sigmoid`` for the bounded 2·sigmoid.
    zero:
        Mode matrices of the heads that start at zero: ``last`` (everything trains) or ``all`` (as released).
    """

    def __init__(
        self,
        start: Mapping[str, Tensor],
        blocks: Sequence[Sequence[str]],
        *,
        sigma: str = "exp",
        zero: str = "last",
    ) -> None:
        super().__init__(start, blocks, zero=zero)
        self.sigma = sigma
        self.known = list(itertools.accumulate(self.code_sizes[:-1]))  # codes of blocks < i, i = 2, 3 …
        like = next(iter(start.values()))
        own = self.code_sizes[1:]
        self.links = nn.ModuleList(nn.Linear(n, o).to(like) for n, o in zip(self.known, own, strict=True))

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """z → φ, both keyed by name: φ = z ⊙ σ(a) + m."""
        x = self.stack(z)
        phi = [torch.addcmul(m, z_s, self.scale(a)) for z_s, (a, m) in zip(x, self.conditions(x), strict=True)]
        named = self.split(phi)
        return {name: named[name] for name in z}

    def conditions(self, stacks: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """[a_i, m_i] = d_i(e_1(z_1), …, e_{i−1}(z_{i−1})) for all blocks at once, stacked like z."""
        if not self.links:
            return self.decode([])
        codes = self.encode(stacks)
        links = zip(cast("Iterable[nn.Linear]", self.links), self.known, strict=True)
        return self.decode([torch.addmv(link.bias, link.weight, codes[:known]) for link, known in links])

    def scale(self, a: Tensor) -> Tensor:
        """σ(a) > 0 with σ(0) = 1."""
        return a.exp() if self.sigma == "exp" else 2 * a.sigmoid()

    def affine(self, z: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Scales σ(a) and shifts m at z, by name: φ = z ⊙ σ(a) + m."""
        a, m = zip(*self.conditions(self.stack(z)), strict=True)
        return self.split([self.scale(each) for each in a]), self.split(m)

    def inverse(self, phi: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """φ → z, block after block: a_i and m_i depend only on the z found before."""
        z = dict(phi)
        for block in self.blocks:
            scale, shift = self.affine(z)
            z |= {name: (phi[name] - shift[name]) / scale[name] for name in block}
        return z
