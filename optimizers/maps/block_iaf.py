"""The blockIAF: an invertible map whose block i is scaled and shifted by what the blocks before it say.

    φ_i = z_i ⊙ σ(a_i) + m_i,   [a_i, m_i] = d_i(e_1(z_1), …, e_{i−1}(z_{i−1}))

Blocks are the layers of the network in order. All conditioners read z, none reads φ, so one evaluation is parallel
over blocks; the inverse is sequential. Encoders and decoders are ReLU MLPs whose linear maps are mode products: each
layer of an encoder halves every mode of the tensor, [64, 64, 9] → [32, 32, 4] → [16, 16, 2] → [8, 8, 1], a decoder
mirrors it, and one dense layer, the *link*, leads from the codes of all earlier blocks to the decoder inputs of a
block. A decoder begins with a ReLU on what the link says and ends in two heads, log-scale a and shift m::

    link → ReLU → ×W → ReLU → ×W → ReLU → heads

Block 1 has constant a and m. The map is exactly the identity at the start.

Tensors of one shape are stacked and share each matmul, whatever block they belong to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from optimizers.maps.released_weights import load_released
from optimizers.tensors.modes import Shape, group, modes
from optimizers.tensors.products import Layer, chains, listed

__all__ = ["BlockIAF", "load_released", "pyramid"]

DEPTH = 3
"""Mode-product layers of an encoder, and of a decoder."""


def halved(sizes: Shape) -> Shape:
    """Each mode halved, rounded down, at least 1."""
    return tuple(max(1, size // 2) for size in sizes)


def pyramid(sizes: Shape) -> list[Shape]:
    """The modes after 0 … DEPTH layers of an encoder."""
    chain = [sizes]
    for _ in range(DEPTH):
        chain.append(halved(chain[-1]))
    return chain


class ModeLayer(nn.Module):
    """``x ×₁ W₁ ×₂ W₂ … + b`` for a stack of `count` tensors: [G, *inputs] → [G, *outputs].

    W_m [o, n] starts uniform in ±1/√n, b at zero. `zero` names the mode matrices that start at zero instead, ``none``,
    ``last`` or ``all``. Zeroing the last alone already makes the output zero, and leaves it a gradient: the product of
    the others is not zero.
    """

    def __init__(self, count: int, inputs: Shape, outputs: Shape, like: Tensor, zero: str = "none") -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.ParameterList()
        for mode, (n, o) in enumerate(zip(inputs, outputs, strict=True)):
            bound = 1 / math.sqrt(n)
            matrix = torch.empty(count, o, n).uniform_(-bound, bound)
            if zero == "all" or (zero == "last" and mode == len(inputs) - 1):
                matrix = torch.zeros_like(matrix)
            self.weight.append(nn.Parameter(matrix.to(like)))
        self.bias = nn.Parameter(torch.zeros(count, *outputs).to(like))

    def layer(self, relu: bool = False) -> Layer:
        """What it does to its input, with or without a ReLU behind it."""
        return Layer(listed(self.weight), self.bias, relu)


class ModeMLP(nn.Module):
    """ReLU(ModeLayer) once for each step of `chain`: [G, *chain[0]] → [G, *chain[-1]]."""

    def __init__(self, count: int, chain: Sequence[Shape], like: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ModeLayer(count, n, o, like) for n, o in itertools.pairwise(chain))

    def chain(self) -> list[Layer]:
        """Its layers."""
        return [cast(ModeLayer, layer).layer(relu=True) for layer in self.layers]


class BlockIAF(nn.Module):
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

    to_blocks: Tensor
    to_groups: Tensor

    def __init__(
        self,
        start: Mapping[str, Tensor],
        blocks: Sequence[Sequence[str]],
        *,
        sigma: str = "exp",
        zero: str = "last",
    ) -> None:
        super().__init__()
        self.sigma, self.zero = sigma, zero
        self.blocks = [tuple(block) for block in blocks]
        order = [name for block in self.blocks for name in block]
        shapes = {name: tuple(start[name].shape) for name in order}
        like = next(iter(start.values()))
        self.groups = group(order, shapes)  # in each, block 1 comes first and the last block last
        coded = order[: len(order) - len(self.blocks[-1])] if len(self.blocks) > 1 else []
        self.first = [sum(name in self.blocks[0] for name in g.names) for g in self.groups]
        self.coded = [sum(name in coded for name in g.names) for g in self.groups]

        # by the number of their group, where it has such members
        self.first_scale, self.first_shift = nn.ParameterDict(), nn.ParameterDict()
        self.encoders, self.decoders, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for i, (g, first, with_code) in enumerate(zip(self.groups, self.first, self.coded, strict=True)):
            chain, count = pyramid(g.modes), len(g) - first
            if first:
                self.first_scale[str(i)] = nn.Parameter(like.new_zeros(first, *g.modes))
                self.first_shift[str(i)] = nn.Parameter(like.new_zeros(first, *g.modes))
            if with_code:
                self.encoders[str(i)] = ModeMLP(with_code, chain, like)
            if count:
                self.decoders[str(i)] = ModeMLP(count, chain[:0:-1], like)
                self.heads[str(i)] = ModeLayer(2 * count, chain[1], chain[0], like, zero=zero)  # a, then m

        size = {name: math.prod(pyramid(modes(shapes[name]))[-1]) for name in order}
        sizes = [sum(size[name] for name in block) for block in self.blocks]
        self.known = list(itertools.accumulate(sizes[:-1]))
        self.links = nn.ModuleList()  # codes of blocks < i → decoder inputs of block i
        for known, own in zip(self.known, sizes[1:], strict=True):
            self.links.append(nn.Linear(known, own).to(like))
        # codes come out group by group and are needed block by block; decoder inputs the other way round
        in_groups = [name for g, n in zip(self.groups, self.coded, strict=True) for name in g.names[:n]]
        out_groups = [name for g, n in zip(self.groups, self.first, strict=True) for name in g.names[n:]]
        out_blocks = [name for block in self.blocks[1:] for name in block]
        self.register_buffer("to_blocks", _moves(in_groups, coded, size).to(like.device), persistent=False)
        self.register_buffer("to_groups", _moves(out_blocks, out_groups, size).to(like.device), persistent=False)

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """z → φ, both keyed by name."""
        stacks = [g.stack(z) for g in self.groups]
        phi: dict[str, Tensor] = {}
        for g, x, (a, m) in zip(self.groups, stacks, self.conditions(stacks), strict=True):
            phi |= g.split(torch.addcmul(m, x, self.scale(a)))
        return {name: phi[name] for name in z}

    def inverse(self, phi: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """φ → z, block after block: a_i and m_i depend only on the z found before."""
        z = dict(phi)
        for block in self.blocks:
            scale, shift = self.affine(z)
            z |= {name: (phi[name] - shift[name]) / scale[name] for name in block}
        return z

    def affine(self, z: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Scales σ(a) and shifts m at z, by name: φ = z ⊙ σ(a) + m."""
        scale: dict[str, Tensor] = {}
        shift: dict[str, Tensor] = {}
        for g, (a, m) in zip(self.groups, self.conditions([g.stack(z) for g in self.groups]), strict=True):
            scale |= g.split(self.scale(a))
            shift |= g.split(m)
        return scale, shift

    def scale(self, a: Tensor) -> Tensor:
        """σ(a) > 0 with σ(0) = 1."""
        return a.exp() if self.sigma == "exp" else 2 * a.sigmoid()

    def conditions(self, stacks: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(a, m), each [G, *modes], of every group at the stacked z."""
        found: list[tuple[Tensor, Tensor]] = []
        inputs = self._decoder_inputs(stacks)
        layers = [[*mlp.chain(), cast(ModeLayer, self.heads[i]).layer()] for i, mlp in _mlps(self.decoders).items()]
        decoded = dict(zip(inputs, chains(list(inputs.values()), layers), strict=True))
        for i in map(str, range(len(self.groups))):
            parts = [(self.first_scale[i], self.first_shift[i])] if i in self.first_scale else []
            if i in self.decoders:
                a, m = decoded[i].chunk(2)
                parts.append((a, m))
            scales, shifts = zip(*parts, strict=True)
            found.append(parts[0] if len(parts) == 1 else (torch.cat(scales), torch.cat(shifts)))
        return found

    def has_products_of_zeros(self) -> bool:
        """Whether a head started as a product of several mode matrices, all zero: none of them has a gradient."""
        return self.zero == "all" and any(len(cast(ModeLayer, head).weight) > 1 for head in self.heads.values())

    def _decoder_inputs(self, stacks: Sequence[Tensor]) -> dict[str, Tensor]:
        """ReLU of what the links say to the tensors that are not in block 1: [G, *code] by group."""
        if not self.links:
            return {}
        flat = self._codes(stacks)
        links = zip(cast("Iterable[nn.Linear]", self.links), self.known, strict=True)
        said = torch.cat([torch.addmv(link.bias, link.weight, flat[:known]) for link, known in links]).relu()
        shapes = {}
        for i in self.decoders:
            g = self.groups[int(i)]
            shapes[i] = (len(g) - self.first[int(i)], *pyramid(g.modes)[-1])
        parts = said.index_select(0, self.to_groups).split([math.prod(shape) for shape in shapes.values()])
        return {i: part.reshape(shape) for (i, shape), part in zip(shapes.items(), parts, strict=True)}

    def _codes(self, stacks: Sequence[Tensor]) -> Tensor:
        """Codes of all blocks but the last, block by block, flat."""
        coded = [stacks[int(i)][: self.coded[int(i)]] for i in self.encoders]
        codes = chains(coded, [mlp.chain() for mlp in _mlps(self.encoders).values()])
        return torch.cat([code.flatten() for code in codes]).index_select(0, self.to_blocks)


def _mlps(modules: nn.ModuleDict) -> Mapping[str, ModeMLP]:
    return cast("Mapping[str, ModeMLP]", modules)


def _moves(now: Sequence[str], then: Sequence[str], size: Mapping[str, int]) -> Tensor:
    """Index that takes the concatenation of `now`, each name `size` entries long, to that of `then`."""
    offsets = dict(zip(now, itertools.accumulate((size[name] for name in now), initial=0), strict=False))
    places = [torch.arange(offsets[name], offsets[name] + size[name]) for name in then]
    return torch.cat(places) if places else torch.empty(0, dtype=torch.int64)
