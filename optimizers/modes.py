"""Mode products of parameter tensors, for many tensors of one shape at a time.

A parameter is seen as a tensor of few *modes*: a convolution weight as [out, in, kernel], a matrix as [out, in], a
vector as [dim]. A Kronecker-structured linear map multiplies each mode m by its own small matrix,
``Y = X ×₁ M₁ ×₂ M₂ ×₃ M₃``, i.e. ``Y[p,q,r] = Σ_{i,j,k} M₁[p,i] M₂[q,j] M₃[r,k] X[i,j,k]``, which is
``(M₁ ⊗ M₂ ⊗ M₃) vec X`` without ever forming the product.

Networks repeat shapes, so tensors of one shape are stacked, [G, *modes], and multiplied in one batched matmul a mode:
a handful of operations for the whole network instead of a handful for each tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def modes(shape: Sequence[int]) -> Shape:
    """Modes of a parameter: kernel axes count as one, a scalar as a vector of one."""
    if len(shape) > 2:
        return (shape[0], shape[1], math.prod(shape[2:]))
    return tuple(shape) or (1,)


class Group:
    """Tensors, by name, that have the same modes; stacked they are [G, *modes]."""

    def __init__(self, names: Sequence[str], shapes: Mapping[str, Shape]) -> None:
        self.names = tuple(names)
        self.shapes = tuple(tuple(shapes[name]) for name in names)
        self.modes = modes(self.shapes[0])

    def __len__(self) -> int:
        return len(self.names)

    def stack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Values by name → [G, *modes]."""
        if len(self) == 1:
            return values[self.names[0]].reshape(1, *self.modes)
        return torch.stack([values[name].reshape(self.modes) for name in self.names])

    def split(self, stacked: Tensor) -> dict[str, Tensor]:
        """[G, *modes] → values by name, in the shapes they have in the network (views)."""
        parts = stacked.unbind(0)
        return {name: part.reshape(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}


def group(names: Sequence[str], shapes: Mapping[str, Shape]) -> list[Group]:
    """`names` grouped by the modes of their shapes, in the order in which a shape first appears."""
    found: dict[Shape, list[str]] = {}
    for name in names:
        found.setdefault(modes(shapes[name]), []).append(name)
    return [Group(members, shapes) for members in found.values()]


def leading_last(x: Tensor) -> Tensor:
    """[…, n, rest] → [… , rest, n]: a view, or a copy where it is small and its factor large.

    For few rows and a large factor, BLAS is several times faster, above all in the backward pass, on rows in memory
    order.
    """
    return x.mT.contiguous() if x.shape[-1] < x.shape[-2] else x.mT


def mode_products(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """``x ×₁ F₁ ×₂ F₂ … + bias`` for a stack: x [G, n₁, …], F_m [G, o_m, n_m], bias [G, o₁, …] → [G, o₁, …].

    Each product contracts the leading mode and appends the new one at the end, so that every intermediate is
    contiguous and only views lie between the matmuls; modes without a factor come out in front. A stack of one is
    multiplied unbatched: under vmap its factors, which may be large, are then shared by all tasks.
    """
    if x.shape[0] > 1:
        return _products(x, factors, bias, 1)
    alone = None if bias is None else bias.squeeze(0)
    return _products(x.squeeze(0), [factor.squeeze(0) for factor in factors], alone, 0).unsqueeze(0)


def _products(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None, batched: int) -> Tensor:
    """:func:`mode_products` with `batched` = 1, or of a single tensor without the stack's axis with 0."""
    lead, sizes = x.shape[:batched], list(x.shape[batched:])
    for index, factor in enumerate(factors):
        n, *rest = sizes
        x = leading_last(x.reshape(*lead, n, math.prod(rest)))  # [(G,) rest, n]
        sizes = [*rest, factor.shape[-2]]
        if bias is not None and index == len(factors) - 1:
            flat = bias.reshape(*lead, math.prod(rest), factor.shape[-2])
            x = torch.baddbmm(flat, x, factor.mT) if batched else torch.addmm(flat, x, factor.mT)
        else:
            x = x @ factor.mT
        x = x.reshape(*lead, *sizes)
    return x
