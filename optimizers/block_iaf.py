"""The blockIAF: an invertible map whose block i is scaled and shifted by what the blocks before it say.

    φ_i = z_i ⊙ σ(a_i) + m_i,   [a_i, m_i] = d_i(e_1(z_1), …, e_{i−1}(z_{i−1}))

Blocks are the layers of the network in order. All conditioners read z, none reads φ, so one evaluation is parallel
over blocks; the inverse is sequential. Encoders and decoders are ReLU MLPs whose linear maps are mode products: each
layer of an encoder halves every mode of the tensor, [64, 64, 9] → [32, 32, 4] → [16, 16, 2] → [8, 8, 1], a decoder
mirrors it, and one dense layer leads from the codes of all earlier blocks to the decoder inputs of a block. A decoder
ends in two heads, log-scale a and shift m. Block 1 has constant a and m. The map is exactly the identity at the start.

Tensors of one shape are stacked and share each matmul, whatever block they belong to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optimizers.modes import Shape, group, mode_products, modes

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

    `zero` names the mode matrices that start at zero, ``none``, ``last`` or ``all``; with it, the bias. Zeroing the
    last alone already makes the output zero, and leaves it a gradient: the product of the others is not zero.
    """

    def __init__(self, count: int, inputs: Shape, outputs: Shape, like: Tensor, zero: str = "none") -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.ParameterList()
        for mode, (n, o) in enumerate(zip(inputs, outputs, strict=True)):
            matrix = torch.randn(count, o, n) / math.sqrt(n)  # keeps the scale of its input
            if zero == "all" or (zero == "last" and mode == len(inputs) - 1):
                matrix = torch.zeros_like(matrix)
            self.weight.append(nn.Parameter(matrix.to(like)))
        bound = 0.0 if zero != "none" else 1 / math.sqrt(math.prod(inputs))
        self.bias = nn.Parameter(torch.empty(count, *outputs).uniform_(-bound, bound).to(like))

    def forward(self, x: Tensor) -> Tensor:
        return mode_products(x, list(self.weight), self.bias)

    @torch.no_grad()
    def wake(self, x: Tensor) -> Tensor:
        """Raise the bias of every unit below zero at `x` until it is as far above; the output, all positive.

        z differs little between tasks, so that a ReLU that is off at the start is off for every task: without this
        half of the units, and a whole layer of one or two units in half of all draws, would never train.
        """
        y = self(x)
        self.bias.add_(2 * F.relu(-y))
        return self(x)

    def multiply_adds(self) -> int:
        count, sizes, total = self.bias.shape[0], list(self.inputs), 0
        for mode, o in enumerate(self.outputs):
            total += math.prod(sizes) * o
            sizes[mode] = o
        return count * total


class ModeMLP(nn.Module):
    """ReLU(ModeLayer) once for each step of `chain`: [G, *chain[0]] → [G, *chain[-1]]."""

    def __init__(self, count: int, chain: Sequence[Shape], like: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ModeLayer(count, n, o, like) for n, o in itertools.pairwise(chain))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return x

    def wake(self, x: Tensor) -> None:
        """:meth:`ModeLayer.wake` for every layer in turn, at the input `x`."""
        for layer in self.layers:
            assert isinstance(layer, ModeLayer)
            x = layer.wake(x)


class BlockIAF(nn.Module):
    """φ = g(z) for the tensors `start` (by name) in `blocks` (names in order, block by block).

    Parameters
    ----------
    start:
        A dual point at which the map is set up: its shapes are those of z, and no hidden unit is off there.
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
        super().__init__()
        self.sigma = sigma
        self.blocks = [tuple(block) for block in blocks]
        self.order = tuple(name for block in self.blocks for name in block)
        shapes = {name: tuple(start[name].shape) for name in self.order}
        like = next(iter(start.values()))
        first, rest = self.blocks[0], [name for block in self.blocks[1:] for name in block]
        coded = [name for block in self.blocks[:-1] for name in block] if rest else []

        self.first = group(first, shapes)
        self.first_scale = nn.ParameterList([like.new_zeros(len(g), *g.modes) for g in self.first])
        self.first_shift = nn.ParameterList([like.new_zeros(len(g), *g.modes) for g in self.first])

        self.coded, self.decoded = group(coded, shapes), group(rest, shapes)
        code = {name: pyramid(modes(shapes[name]))[-1] for name in self.order}
        self.encoders = nn.ModuleList(ModeMLP(len(g), pyramid(g.modes), like) for g in self.coded)
        self.decoders = nn.ModuleList(ModeMLP(len(g), pyramid(g.modes)[:0:-1], like) for g in self.decoded)
        heads = [(len(g), pyramid(g.modes)[1], g.modes) for g in self.decoded]
        self.scale_heads = nn.ModuleList(ModeLayer(*head, like, zero=zero) for head in heads)
        self.shift_heads = nn.ModuleList(ModeLayer(*head, like, zero=zero) for head in heads)
        self.links = nn.ModuleList()  # codes of blocks < i → decoder inputs of block i
        self.code_sizes = {name: math.prod(code[name]) for name in self.order}
        sizes = [sum(self.code_sizes[name] for name in block) for block in self.blocks]
        self.known = list(itertools.accumulate(sizes[:-1]))
        for known, size in zip(self.known, sizes[1:], strict=True):
            self.links.append(nn.Linear(known, size).to(like))
        self._wake({name: value.detach() for name, value in start.items()})

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """z → φ, both keyed by name."""
        phi: dict[str, Tensor] = {}
        for members, a, m in zip(self.first, self.first_scale, self.first_shift, strict=True):
            phi |= members.split(members.stack(z) * self.scale(a) + m)
        for members, (a, m) in zip(self.decoded, self.conditions(z), strict=True):
            phi |= members.split(members.stack(z) * self.scale(a) + m)
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
        constant = list(zip(self.first_scale, self.first_shift, strict=True))
        for members, (a, m) in zip([*self.first, *self.decoded], [*constant, *self.conditions(z)], strict=True):
            scale |= members.split(self.scale(a))
            shift |= members.split(m)
        return scale, shift

    def scale(self, a: Tensor) -> Tensor:
        """σ(a) > 0 with σ(0) = 1."""
        return a.exp() if self.sigma == "exp" else 2 * a.sigmoid()

    def conditions(self, z: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(a, m), each [G, *modes], of every group of blocks 2, 3, …"""
        found = []
        modules = zip(self.decoders, self.scale_heads, self.shift_heads, strict=True)
        for x, (decoder, scale, shift) in zip(self._linked(self._codes(z)), modules, strict=True):
            x = decoder(x)
            found.append((scale(x), shift(x)))
        return found

    def multiply_adds(self) -> int:
        """Multiply-adds of one evaluation."""
        layers = sum(layer.multiply_adds() for layer in self.modules() if isinstance(layer, ModeLayer))
        links = sum(math.prod(link.weight.shape) for link in self.links if isinstance(link, nn.Linear))
        return int(layers + links + sum(len(g) * math.prod(g.modes) for g in [*self.first, *self.decoded]))

    def _codes(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes: dict[str, Tensor] = {}
        for members, encoder in zip(self.coded, self.encoders, strict=True):
            x = encoder(members.stack(z))
            codes |= dict(zip(members.names, x.flatten(1).unbind(0), strict=True))
        return codes

    def _linked(self, codes: Mapping[str, Tensor]) -> list[Tensor]:
        """Codes by name → decoder inputs [G, code] of every decoded group."""
        if not self.links:
            return []
        flat = torch.cat([codes[name] for name in self.order if name in codes])
        inputs: dict[str, Tensor] = {}
        for link, known, block in zip(self.links, self.known, self.blocks[1:], strict=True):
            out = link(flat[:known])
            inputs |= dict(zip(block, out.split([self.code_sizes[name] for name in block]), strict=True))
        return [torch.stack([inputs[name].reshape(pyramid(g.modes)[-1]) for name in g.names]) for g in self.decoded]

    @torch.no_grad()
    def _wake(self, z: Mapping[str, Tensor]) -> None:
        for members, encoder in zip(self.coded, self.encoders, strict=True):
            assert isinstance(encoder, ModeMLP)
            encoder.wake(members.stack(z))
        for x, decoder in zip(self._linked(self._codes(z)), self.decoders, strict=True):
            assert isinstance(decoder, ModeMLP)
            decoder.wake(x)
