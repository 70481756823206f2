"""The encoders and decoders of a blockIAF, one of each a tensor, evaluated shape by shape.

Encoders and decoders are ReLU MLPs whose linear maps are mode products. Each layer of an encoder halves every mode of
the tensor, [64, 64, 9] → [32, 32, 4] → [16, 16, 2] → [8, 8, 1], to its *code*; a decoder mirrors it and ends in two
heads, log-scale a and shift m::

    z_t → ×W → ReLU → ×W → ReLU → ×W → ReLU → code;    input → ReLU → ×W → ReLU → ×W → ReLU → heads

Networks repeat shapes: the tensors of one shape, whatever block they belong to, are a stack [G, *modes], and their MLPs
share each matmul. The map wants codes block by block; they come out stack by stack and are moved by one index, and the
inputs of decoders the other way round. Tensors of block 1 have no decoder but constant a and m, those of the last block
no encoder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from optimizers.tensors.modes import Shape, group_by_modes, modes
from optimizers.tensors.products import Layer, chains, listed

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


class StackedConditioner(nn.Module):
    """Codes e_j(z_j) of the blocks but the last; log-scales and shifts d_i of the blocks but the first.

    Modules are named by the number of their stack, where it has such members; in a stack, the tensors of block 1 come
    first and those of the last block last.
    """

    to_blocks: Tensor
    to_stacks: Tensor

    def __init__(self, start: Mapping[str, Tensor], blocks: Sequence[Sequence[str]], *, zero: str) -> None:
        super().__init__()
        self.blocks, self.zero = [tuple(block) for block in blocks], zero
        order = [name for block in self.blocks for name in block]
        shapes = {name: tuple(start[name].shape) for name in order}
        like = next(iter(start.values()))
        self.groups = group_by_modes(order, shapes)
        coded = order[: len(order) - len(self.blocks[-1])] if len(self.blocks) > 1 else []
        self.first = [sum(name in self.blocks[0] for name in g.names) for g in self.groups]
        self.coded = [sum(name in coded for name in g.names) for g in self.groups]

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
        self.code_sizes = [sum(size[name] for name in block) for block in self.blocks]
        in_stacks = [name for g, n in zip(self.groups, self.coded, strict=True) for name in g.names[:n]]
        out_stacks = [name for g, n in zip(self.groups, self.first, strict=True) for name in g.names[n:]]
        out_blocks = [name for block in self.blocks[1:] for name in block]
        self.register_buffer("to_blocks", _moves(in_stacks, coded, size).to(like.device), persistent=False)
        self.register_buffer("to_stacks", _moves(out_blocks, out_stacks, size).to(like.device), persistent=False)

    def stack(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """By name → stacks [G, *modes]."""
        return [g.stack(values) for g in self.groups]

    def split(self, stacks: Sequence[Tensor]) -> dict[str, Tensor]:
        """Stacks [G, *modes] → by name."""
        return {name: value for g, x in zip(self.groups, stacks, strict=True) for name, value in g.split(x).items()}

    def encode(self, stacks: Sequence[Tensor]) -> Tensor:
        """Stacked z → codes of all blocks but the last, block by block, flat: [`code_sizes` of these, summed]."""
        coded = [stacks[int(i)][: self.coded[int(i)]] for i in self.encoders]
        codes = chains(coded, [cast(ModeMLP, mlp).chain() for mlp in self.encoders.values()])
        return torch.cat([code.flatten() for code in codes]).index_select(0, self.to_blocks)

    def decode(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Inputs of the decoders of block 2, 3 … [its code size] → (a, m) of all tensors, stacked: [G, *modes] each."""
        behind = self._decode_behind_first(inputs) if inputs else {}
        found: list[tuple[Tensor, Tensor]] = []
        for i in map(str, range(len(self.groups))):
            parts = [(self.first_scale[i], self.first_shift[i])] if i in self.first_scale else []
            parts += [behind[i]] if i in behind else []
            scales, shifts = zip(*parts, strict=True)
            found.append(parts[0] if len(parts) == 1 else (torch.cat(scales), torch.cat(shifts)))
        return found

    def _decode_behind_first(self, inputs: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """(a, m) of the tensors behind block 1, by stack."""
        stacks = [(self.groups[int(i)], self.first[int(i)]) for i in self.decoders]
        shapes = [(len(g) - first, *pyramid(g.modes)[-1]) for g, first in stacks]
        parts = torch.cat(list(inputs)).relu().index_select(0, self.to_stacks).split([math.prod(s) for s in shapes])
        layers = [
            [*cast(ModeMLP, mlp).chain(), cast(ModeLayer, heads).layer()]
            for mlp, heads in zip(self.decoders.values(), self.heads.values(), strict=True)
        ]
        decoded = chains([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)], layers)
        return {i: (a, m) for i, (a, m) in zip(self.decoders, (x.chunk(2) for x in decoded), strict=True)}

    def has_products_of_zeros(self) -> bool:
        """Whether a head started as a product of several mode matrices, all zero: none of them has a gradient."""
        return self.zero == "all" and any(len(cast(ModeLayer, head).weight) > 1 for head in self.heads.values())


def _moves(now: Sequence[str], then: Sequence[str], size: Mapping[str, int]) -> Tensor:
    """Index that takes the concatenation of `now`, each name `size` entries long, to that of `then`."""
    offsets = dict(zip(now, itertools.accumulate((size[name] for name in now), initial=0), strict=False))
    places = [torch.arange(offsets[name], offsets[name] + size[name]) for name in then]
    return torch.cat(places) if places else torch.empty(0, dtype=torch.int64)
